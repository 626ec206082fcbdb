"""Reads klip-projections/1, the project's own neutral HDF5 file of projection data (docs/projections.md)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from klip_engine.errors import InputError
from klip_engine.io.projections import hdf5
from klip_engine.io.projections.checks import check_detector, check_mu_water, check_trajectory
from klip_engine.io.projections.first_look import FirstLook
from klip_engine.io.projections.klip_layout import DATA, FRAME, SCHEMA, VECTORS, digest
from klip_engine.io.projections.measured import QUANTITIES, LineIntegrals, line_integrals
from klip_engine.io.projections.options import ReadOptions
from klip_engine.projections import Beam, Detector, Projections, Trajectory, beam_of
from klip_engine.volume import Geometry

if TYPE_CHECKING:
    import h5py


_LARGEST_HINT = 4_000_000_000
"""Voxels: 2048 x 2048 in a thousand slices."""


def recognises(seen: FirstLook) -> bool:
    """HDF5 whose root names this schema, whatever its version."""
    return seen.schema.startswith(SCHEMA.partition("/")[0] + "/")


def read(path: Path, options: ReadOptions) -> Projections:
    """Read and check a file; `item` and `stack` of the options mean nothing here.

    Raises InputError, a sentence each, for other versions, missing units or geometry, wrong shapes and types, NaN
    that no weight covers, links out of the file, and data that do not match their sha256.
    """
    with hdf5.opened(path) as file:
        attributes = _Attributes(dict(file.attrs.items()), path)
        if attributes.text("schema") != SCHEMA:
            raise InputError(f"{path} is {attributes.text('schema')}; this program reads {SCHEMA}: update it")
        data = {name: hdf5.array(file, name, path) for name in DATA}
        group = hdf5.group_of(file, "geometry", path)
        vectors = {} if group is None else {name: hdf5.array(group, name, path) for name in VECTORS}
        quantity = _quantity(file, path)
        hint = _volume_hint(file, path)
    if attributes.text("frame", FRAME) != FRAME:
        raise InputError(f"the frame of {path} is {attributes.text('frame')!r}; {SCHEMA} knows only {FRAME!r}")
    values = _values(data, path)
    notices = _check_digest(data, vectors, attributes.text("sha256", ""), path)
    trajectory = _trajectory(vectors, path)
    detector = _detector(attributes, (values.shape[2], values.shape[1]))
    check_detector(detector, str(path))
    notices += check_trajectory(trajectory, str(path))
    measured = _measured(values, quantity, data, attributes, path)
    provenance = attributes.json("provenance")
    return Projections(
        line_integrals=measured.values,
        trajectory=trajectory,
        detector=detector,
        beam=_beam(attributes, trajectory, detector, path),
        mu_water_per_mm=check_mu_water(attributes.positive("mu_water_per_mm"), str(path)),
        weights=measured.weights,
        i0=attributes.positive_or_none("I0"),
        electronic_sigma=attributes.deviation_or_none("electronic_sigma"),
        isocentre_mm=attributes.vector("isocentre_mm", 3, (0.0, 0.0, 0.0)),
        volume_hint=hint,
        description={"format": SCHEMA, "file": path.name, "quantity": quantity, "provenance": provenance},
        notices=notices + measured.notices,
    )


def _quantity(file: h5py.File, path: Path) -> str:
    if "projections" not in file:
        raise InputError(f"{path} holds no /projections; see docs/projections.md for what the file must hold")
    quantity = _Attributes(dict(file["projections"].attrs.items()), path).text("quantity", "")
    if quantity not in QUANTITIES:
        said = f"is {quantity!r}" if quantity else "is missing"
        raise InputError(
            f"the unit of /projections in {path} {said}: its attribute quantity must be {' or '.join(QUANTITIES)}"
        )
    return quantity


def _values(data: dict[str, npt.NDArray[Any] | None], path: Path) -> npt.NDArray[np.float32]:
    values = data["projections"]
    if values is None or values.dtype != np.float32 or values.ndim != 3 or 0 in values.shape:
        said = "missing" if values is None else f"{values.dtype} {list(values.shape)}"
        raise InputError(f"/projections in {path} is {said}; it must be float32 [view, row, column]")
    for name in ("flat", "dark"):
        part = data[name]
        if part is not None and part.shape not in (values.shape, values.shape[1:]):
            raise InputError(
                f"/{name} in {path} is {list(part.shape)}; it must be [row, column], {list(values.shape[1:])}, or "
                "one such frame per view"
            )
    weights = data["weights"]
    if weights is not None:
        if weights.shape != values.shape or weights.dtype != np.float32:
            raise InputError(
                f"/weights in {path} are {weights.dtype} {list(weights.shape)}; they must be float32 like "
                f"/projections, {list(values.shape)}"
            )
        if not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise InputError(f"/weights in {path} hold negative values or NaN; 0 marks what must not count")
    return np.array(values, np.float32)


def _check_digest(
    data: dict[str, npt.NDArray[Any] | None], vectors: dict[str, npt.NDArray[Any] | None], said: str, path: Path
) -> tuple[str, ...]:
    if not said:
        return ("the file holds no sha256: whether its data are as written is not known",)
    named = [(f"/{name}", values) for name, values in data.items() if values is not None]
    named += [(f"/geometry/{name}", values) for name, values in vectors.items() if values is not None]
    if digest(named) != said:
        raise InputError(
            f"the data of {path} do not match their sha256: the file was altered or damaged; copy it again"
        )
    return ()


def _trajectory(vectors: dict[str, npt.NDArray[Any] | None], path: Path) -> Trajectory:
    parts = {name: None if v is None else np.asarray(v, np.float64) for name, v in vectors.items()}
    center, u, v = parts.get("det_center_mm"), parts.get("det_u"), parts.get("det_v")
    source, ray = parts.get("source_mm"), parts.get("ray_dir")
    if center is None or u is None or v is None or (source is None and ray is None):
        missing = [n for n in ("det_center_mm", "det_u", "det_v") if parts.get(n) is None]
        missing += ["source_mm (or ray_dir)"] if source is None and ray is None else []
        raise InputError(
            f"{path} has no geometry: /geometry lacks {', '.join(missing)}; without it no ray is known"
        )
    if source is not None and ray is not None:
        raise InputError(f"/geometry in {path} has source_mm and ray_dir: a beam is either divergent or parallel")
    return Trajectory(center, u, v, source, ray)


def _detector(attributes: _Attributes, size: tuple[int, int]) -> Detector:
    shape: Literal["flat", "cylindrical"] = "flat"
    if attributes.one_of("detector_shape", ("flat", "cylindrical")) == "cylindrical":
        shape = "cylindrical"
    return Detector(
        shape=shape,
        columns=size[0],
        rows=size[1],
        column_pitch_mm=attributes.positive("column_pitch_mm"),
        row_pitch_mm=attributes.positive("row_pitch_mm"),
        central_element=attributes.vector("central_element", 2),
        focal_radius_mm=attributes.positive("focal_radius_mm") if shape == "cylindrical" else None,
    )


def _beam(attributes: _Attributes, trajectory: Trajectory, detector: Detector, path: Path) -> Beam:
    said, found = attributes.one_of("beam", ("parallel", "fan", "cone")), beam_of(trajectory, detector)
    if said != found and not (said == "cone" and found == "fan"):
        raise InputError(f"the beam of {path} is called {said}, but its geometry is that of a {found} beam")
    return "cone" if said == "cone" else found


def _measured(
    values: npt.NDArray[np.float32],
    quantity: str,
    data: dict[str, npt.NDArray[Any] | None],
    attributes: _Attributes,
    path: Path,
) -> LineIntegrals:
    parts = {n: None if data[n] is None else np.array(data[n], np.float32) for n in ("flat", "dark", "weights")}
    return line_integrals(
        values,
        next(known for known in QUANTITIES if known == quantity),
        str(path),
        flat=parts["flat"],
        dark=parts["dark"],
        weights=parts["weights"],
        i0=attributes.positive_or_none("I0"),
        electronic_sigma=attributes.deviation_or_none("electronic_sigma"),
    )


def _volume_hint(file: h5py.File, path: Path) -> Geometry | None:
    group = hdf5.group_of(file, "volume_hint", path)
    if group is None:
        return None
    hint = _Attributes(dict(group.attrs.items()), path)
    size = hint.vector("size", 3)
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    geometry = Geometry(
        (int(size[0]), int(size[1]), int(size[2])),
        hint.vector("spacing", 3),
        hint.vector("origin", 3),
        hint.vector("direction", 9, identity),
    )
    if min(geometry.size) < 1 or min(geometry.spacing) <= 0:
        raise InputError(f"/volume_hint in {path} describes no grid: size and spacing must be above zero")
    if math.prod(geometry.size) > _LARGEST_HINT:
        raise InputError(f"/volume_hint in {path} has {math.prod(geometry.size):.1e} voxels: no scan has so many")
    return geometry


@dataclass(frozen=True)
class _Attributes:
    """Attributes of an HDF5 object, asked for by type."""

    values: dict[str, Any]
    path: Path

    def text(self, name: str, default: str | None = None) -> str:
        value = self.values.get(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        return value

    def one_of(self, name: str, known: tuple[str, ...]) -> str:
        value = self.text(name, "")
        if value not in known:
            raise self._wrong(name, f"one of {', '.join(known)}")
        return value

    def deviation_or_none(self, name: str) -> float | None:
        if name not in self.values:
            return None
        value: float = self.vector(name, 1)[0]
        if value < 0:
            raise self._wrong(name, "zero or above")
        return value

    def positive_or_none(self, name: str) -> float | None:
        return None if name not in self.values else self.positive(name)

    def positive(self, name: str) -> float:
        value: float = self.vector(name, 1)[0]
        if value <= 0:
            raise self._wrong(name, "above zero")
        return value

    def vector(self, name: str, length: int, default: tuple[float, ...] | None = None) -> Any:
        """`length` finite numbers; typed loosely because tuples of a fixed length cannot say how long they are."""
        if name not in self.values and default is not None:
            return default
        value = np.atleast_1d(np.asarray(self.values.get(name, "")))
        if value.dtype.kind not in "fiu" or value.shape != (length,) or not np.isfinite(value).all():
            raise self._wrong(name, "a finite number" if length == 1 else f"{length} finite numbers")
        return tuple(float(v) for v in value)

    def json(self, name: str) -> Any:
        try:
            return json.loads(self.text(name, "{}"))
        except ValueError as error:
            raise self._wrong(name, "JSON") from error

    def _wrong(self, name: str, must_be: str) -> InputError:
        said = "is missing" if name not in self.values else "is not usable"
        return InputError(f"the attribute {name} of {self.path} {said}: it must be {must_be}")
