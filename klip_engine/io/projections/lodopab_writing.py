"""Writes observations as LoDoPaB-CT has them (Leuschner et al., Scientific Data 8, 2021, 109): HDF5 with `data`
[items, 1000, 513] of float32, one item per detector row, 128 items in a file.

The data set's geometry is fixed and nowhere in the file (`lodopab.py`), so a scan must have it: parallel beams at
(i + 1/2) pi / 1000, 513 bins over the diagonal of 26 cm. Counts of zero are 0.1 of 4096 photons there, which is the
largest line integral.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from klip_engine.errors import UsageError
from klip_engine.files import replaced_file
from klip_engine.io.projections import lodopab
from klip_engine.io.projections.circular_scan import SAME_MM, CircularScan, cannot_hold, circular_scan
from klip_engine.io.projections.losses import losses, without_holes
from klip_engine.projections import Projections
from klip_engine.volume import FloatArray
from klip_engine.words import counted, install_extra

NAME = "LoDoPaB-CT"
ITEMS_PER_FILE = 128
_LARGEST = float(-np.log(0.1 / lodopab.PHOTONS))


def write(path: Path, projections: Projections, provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Write the rows as items; returns what the format does not keep.

    More than 128 rows go into files with _000, _001, ... behind the name, as in the data set.
    Raises UsageError, saying the geometry, for scans that do not have it, where several files would be written over
    others, and where h5py is not there.
    """
    check(path, projections)
    import h5py

    filled, holes = without_holes(projections, NAME)
    scan = _checked(filled)
    items = np.moveaxis(scan.line_integrals, 1, 0)
    files = _files(Path(path), items)
    taken = [name for name in files if name != Path(path) and name.exists()]
    if taken:
        raise UsageError(f"{taken[0]} is there already, and more files would be replaced: choose another name")
    with ExitStack() as written:
        for name, block in files.items():
            temporary = written.enter_context(replaced_file(name))
            with h5py.File(temporary, "w") as file:
                data = file.create_dataset(
                    "data", block.shape, "<f4", chunks=(1, *block.shape[1:]), track_times=False
                )
                for item, values in enumerate(block):
                    data[item] = np.minimum(values, np.float32(_LARGEST)) / np.float32(lodopab.MU_MAX_PER_M)
    capped = int((items > _LARGEST).sum())
    return (
        *(
            (f"{len(items)} slices were written to {len(files)} files of {ITEMS_PER_FILE}",)
            if len(files) > 1
            else ()
        ),
        *(
            (f"{counted(capped, 'line integral')} above {_LARGEST:.2f}, no photon of 4096, became that",)
            if capped
            else ()
        ),
        *(("the heights of the slices are not kept",) if len(items) > 1 else ()),
        *_noise(projections),
        *holes,
        *losses(
            projections,
            NAME,
            provenance,
            keeps=("i0", *_assumed(projections)),
            assumed_mu_water_per_mm=lodopab.MU_WATER_PER_MM,
        ),
    )


def check(path: Path, projections: Projections) -> None:
    """Raise UsageError for scans that do not have the data set's geometry, and where h5py is not there."""
    try:
        import h5py  # noqa: F401
    except ImportError as error:
        raise UsageError(f"LoDoPaB-CT files need h5py: {install_extra('projections')}") from error
    _checked(projections)


def _checked(projections: Projections) -> CircularScan:
    """The scan, where it has the geometry of the data set."""
    geometry = (
        f"it holds {lodopab.ANGLES} parallel views at (i + 1/2) 180/{lodopab.ANGLES} degrees of {lodopab.BINS} "
        f"bins of {lodopab.BIN_MM:.6f} mm about the middle"
    )
    detector = projections.detector
    if projections.trajectory.source_mm is not None:
        raise cannot_hold(NAME, f"{geometry}, and this is a {projections.beam} beam")
    if (projections.trajectory.views, detector.columns) != (lodopab.ANGLES, lodopab.BINS):
        raise cannot_hold(
            NAME, f"{geometry}, and this is {projections.trajectory.views} views of {detector.columns}"
        )
    scan = circular_scan(projections, NAME)
    half = (lodopab.BINS - 1) / 2
    wrong_angle = np.abs(np.angle(np.exp(1j * (scan.angles_rad - lodopab.ANGLES_RAD)))).max()
    wrong_place = abs(scan.central_element[0] - half) * lodopab.BIN_MM
    wrong_place += half * abs(detector.column_pitch_mm - lodopab.BIN_MM)
    if max(wrong_angle * half * lodopab.BIN_MM, wrong_place) > SAME_MM:
        raise cannot_hold(NAME, f"{geometry}, and this scan's rays run elsewhere")
    return scan


def _files(path: Path, items: FloatArray) -> dict[Path, FloatArray]:
    if len(items) <= ITEMS_PER_FILE:
        return {path: items}
    blocks = range(0, len(items), ITEMS_PER_FILE)
    return {
        path.with_name(f"{path.stem}_{number:03d}{path.suffix}"): items[first : first + ITEMS_PER_FILE]
        for number, first in enumerate(blocks)
    }


def _noise(projections: Projections) -> tuple[str, ...]:
    if "weights" in _assumed(projections):
        return ()
    return (f"readers take the noise of {lodopab.PHOTONS:.0f} photons per bin, which this scan does not have",)


def _assumed(projections: Projections) -> list[str]:
    """What the files do not say but every reader takes for granted, rightly for this scan."""
    noise = projections.i0 == lodopab.PHOTONS and not projections.electronic_sigma
    return ["weights"] * noise + ["volume_hint"] * (projections.volume_hint == lodopab.GRID)
