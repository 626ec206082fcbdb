"""One working slice of a scan from the few source slices behind it, without resampling the whole scan."""

from __future__ import annotations

import numpy as np

from klip_engine.volume import CTVolume, FloatArray, Geometry
from klip_engine.working_grid import WorkingGrid, to_working_grid


def one_slab(volume: CTVolume, slab: tuple[int, int], wanted: Geometry, grid: WorkingGrid) -> FloatArray | None:
    """One working slice from the source slices behind it alone: a window of the lattice of the whole scan.

    None where the lattice of these slices is not that of the whole scan (slices that lean).
    """
    first, last = slab
    geometry = volume.geometry
    origin = geometry.to_lps((0, 0, first))
    part = Geometry(
        (geometry.size[0], geometry.size[1], last - first),
        geometry.spacing,
        (float(origin[0]), float(origin[1]), float(origin[2])),
        geometry.direction,
    )
    wide = WorkingGrid((3 * grid.shape[0], 3 * grid.shape[1]), grid.pixel_mm, grid.slice_mm)
    seen = to_working_grid(CTVolume(volume.hu[first:last], part), wide, mask_table=False)
    offset = seen.geometry.to_index(wanted.origin)[:2]
    column, row = (round(float(value)) for value in offset)
    height, width = grid.shape
    fits = 0 <= row <= wide.shape[0] - height and 0 <= column <= wide.shape[1] - width and len(seen.hu) == 1
    if not fits or np.abs(offset - (column, row)).max() > 1e-3:
        return None
    return seen.hu[0, row : row + height, column : column + width].copy()
