"""Reads LoDoPaB-CT observations: HDF5 with `data` [items, 1000 angles, 513 bins], one slice per item.

Leuschner et al., Scientific Data 8, 2021, 109, and its ODL geometry: parallel beams at angles (i + 1/2) pi / 1000,
513 bins over the diagonal of a square of 26 cm, values divided by mu_max = 81.35858 per m, 4096 photons per bin,
counts of zero set to 0.1. ODL's x and y are the slices' columns and rows, so patient coordinates: left and back.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from klip_engine.errors import InputError, UsageError
from klip_engine.io.projections import hdf5
from klip_engine.io.projections.circular import parallel_circle
from klip_engine.io.projections.first_look import FirstLook
from klip_engine.io.projections.measured import line_integrals
from klip_engine.io.projections.options import ReadOptions
from klip_engine.projections import Detector, Projections
from klip_engine.volume import Geometry

ANGLES, BINS = 1000, 513
SIDE_MM, PIXELS = 260.0, 362
PIXEL_MM = SIDE_MM / PIXELS
GRID = Geometry((PIXELS, PIXELS, 1), (PIXEL_MM,) * 3, (-(SIDE_MM - PIXEL_MM) / 2,) * 2 + (0.0,))
BIN_MM = SIDE_MM * float(np.sqrt(2)) / BINS
ANGLES_RAD = (np.arange(ANGLES) + 0.5) * np.pi / ANGLES
MU_MAX_PER_M = 81.35858
MU_WATER_PER_MM = 0.02
PHOTONS = 4096.0
_LARGEST = 11.0 / MU_MAX_PER_M
"""Observations end at -log(0.1 / 4096) / mu_max = 0.1306."""


def recognises(seen: FirstLook) -> bool:
    """HDF5 with `data` of a rank of three and no schema of its own; the shape is checked on reading."""
    shape = seen.hdf5.get("data")
    return not seen.schema and not seen.start.startswith(b"MATLAB") and shape is not None and len(shape) == 3


def read(path: Path, options: ReadOptions) -> Projections:
    """Read one observation of the file, the one `options.item` names.

    Raises InputError for another shape or values no observation has, UsageError for an item that is not there.
    """
    with hdf5.opened(path) as file:
        data = hdf5.dataset(file, "data", path)
        if data is None or data.shape[1:] != (ANGLES, BINS):
            said = "missing" if data is None else str(list(data.shape))
            raise InputError(
                f"`data` in {path} is {said}; observations of LoDoPaB-CT are [items, {ANGLES}, {BINS}] (its "
                "images, [items, 362, 362], are no projections)"
            )
        items = int(data.shape[0])
        item = options.item or 0
        if not 0 <= item < items:
            raise UsageError(f"{path} holds items 0 to {items - 1}; item {item} was asked for")
        values = np.asarray(data[item], np.float32)[:, None, :].copy()
    if not np.isfinite(values).all() or values.max() > _LARGEST:
        raise InputError(
            f"{path} holds values no LoDoPaB-CT observation has: they end at 0.131, this at {values.max():g}"
        )
    values *= np.float32(MU_MAX_PER_M)  # metres times 1 / m: no unit is left
    measured = line_integrals(values, "line_integral", str(path), i0=PHOTONS)
    return Projections(
        line_integrals=measured.values,
        trajectory=parallel_circle(ANGLES_RAD),
        detector=Detector("flat", BINS, 1, BIN_MM, PIXEL_MM, ((BINS - 1) / 2, 0.0)),
        beam="parallel",
        mu_water_per_mm=MU_WATER_PER_MM,
        weights=measured.weights,
        i0=PHOTONS,
        electronic_sigma=0.0,
        volume_hint=GRID,
        description={"format": "LoDoPaB-CT", "file": path.name, "item": item, "items": items},
        notices=(
            "a slice without a place along the body: z = 0, and a thickness of one pixel, are this program's",
            *measured.notices,
        ),
    )
