"""Writes klip-projections/1 (docs/projections.md): line integrals and weights, complete or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from klip_engine.errors import UsageError
from klip_engine.files import replaced_file
from klip_engine.io.projections.klip_layout import FRAME, SCHEMA, digest
from klip_engine.projections import Projections
from klip_engine.version import __version__
from klip_engine.volume import Geometry
from klip_engine.words import install_extra

if TYPE_CHECKING:
    import h5py


def write(path: Path, projections: Projections, provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Write projections to one HDF5 file; `read_projections` gives the same arrays and numbers bit for bit, so
    there is nothing to say about what was lost.

    provenance: the program's name and version are added. The same projections and provenance give the same bytes.
    Raises UsageError where the path cannot be written or h5py is not there, ResourceError on a full disk.
    """
    check(path, projections)
    import h5py

    arrays = _arrays(projections)
    said = {**provenance, "program": "klip-engine", "version": __version__}
    with replaced_file(Path(path)) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(_attributes(projections))
        file.attrs["provenance"] = json.dumps(said, sort_keys=True, allow_nan=False)
        file.attrs["sha256"] = digest(arrays.items())
        for name, values in sorted(arrays.items()):
            file.create_dataset(name, data=values, track_times=False)
        file["projections"].attrs["quantity"] = "line_integral"
        if projections.volume_hint is not None:
            _write_hint(file, projections.volume_hint)
    return ()


def check(path: Path, projections: Projections) -> None:
    """Raise UsageError where h5py is not there: any scan can be held."""
    try:
        import h5py  # noqa: F401
    except ImportError as error:
        raise UsageError(f"writing projection data needs h5py: {install_extra('projections')}") from error


def _arrays(projections: Projections) -> dict[str, npt.NDArray[Any]]:
    path = projections.trajectory
    arrays: dict[str, npt.NDArray[Any] | None] = {
        "/projections": np.ascontiguousarray(projections.line_integrals, np.float32),
        "/weights": None if projections.weights is None else np.ascontiguousarray(projections.weights, np.float32),
        "/geometry/source_mm": path.source_mm,
        "/geometry/ray_dir": path.ray_direction,
        "/geometry/det_center_mm": path.det_center_mm,
        "/geometry/det_u": path.det_u,
        "/geometry/det_v": path.det_v,
    }
    return {name: values for name, values in arrays.items() if values is not None}


def _attributes(projections: Projections) -> dict[str, Any]:
    detector = projections.detector
    attributes: dict[str, Any] = {
        "schema": SCHEMA,
        "frame": FRAME,
        "beam": projections.beam,
        "detector_shape": detector.shape,
        "column_pitch_mm": detector.column_pitch_mm,
        "row_pitch_mm": detector.row_pitch_mm,
        "central_element": np.asarray(detector.central_element, np.float64),
        "focal_radius_mm": detector.focal_radius_mm,
        "mu_water_per_mm": projections.mu_water_per_mm,
        "I0": projections.i0,
        "electronic_sigma": projections.electronic_sigma,
        "isocentre_mm": np.asarray(projections.isocentre_mm, np.float64),
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _write_hint(file: h5py.File, hint: Geometry) -> None:
    group = file.create_group("volume_hint")
    group.attrs["size"] = np.asarray(hint.size, np.int64)
    for name in ("spacing", "origin", "direction"):
        group.attrs[name] = np.asarray(getattr(hint, name), np.float64)
