"""The first image of measured slices: filtered back-projection in HU, in the scanner's patient coordinates."""

from __future__ import annotations

import math

import numpy as np
import torch

from klip_engine.errors import InputError
from klip_engine.operators import filtered_back_projection
from klip_engine.scans.measured import MeasuredSlices
from klip_engine.volume import AIR_HU, CTVolume, FloatArray, Geometry

FINEST_PIXEL_MM = 1.25
"""The working grids of priors are coarser; finer pixels take time and show nothing that is used."""
_SLICES_AT_ONCE = 8
_UNEVEN = 0.02
_LONE_SLICE_MM = 3.0


def reconstruct(slices: MeasuredSlices, grid: Geometry | None = None, *, filter_name: str = "hann") -> CTVolume:
    """Axial slices at the positions that were measured, in HU (z, y, x).

    grid: whose pixels in the plane are wanted, square and along LPS; by default the scan's own `volume_hint` if it
    is such a grid, else pixels of a detector bin, `FINEST_PIXEL_MM` at least, over the field of view. What lies
    beyond every view is air; truncated views are extrapolated.
    Raises InputError where slices are not evenly spaced or the grid is not axial.
    """
    spacing = _slice_spacing(slices)
    hint = slices.volume_hint if slices.volume_hint is not None and _in_plane(slices.volume_hint) else None
    plane = grid or hint or _own_plane(slices)
    if not _in_plane(plane):
        raise InputError("the grid to reconstruct on must have square pixels along the patient's axes")
    geometry = Geometry(
        (plane.size[0], plane.size[1], len(slices)),
        (plane.spacing[0], plane.spacing[0], spacing),
        (plane.origin[0], plane.origin[1], slices.positions_mm[0]),
    )
    hu = np.empty((len(slices), plane.size[1], plane.size[0]), dtype=np.float32)
    for first in range(0, len(slices), _SLICES_AT_ONCE):
        few = slices.averaged([(i, i + 1) for i in range(first, min(first + _SLICES_AT_ONCE, len(slices)))])
        hu[first : first + len(few)] = hu_images(few, geometry, filter_name)
    return CTVolume(hu, geometry)


def hu_images(slices: MeasuredSlices, plane: Geometry, filter_name: str = "hann") -> FloatArray:
    """Filtered back-projections of all slices on the plane's pixels: HU [slice, y, x]; air where no view
    reaches."""
    size, pixel = plane.size, plane.spacing[0]
    middle = plane.to_lps(((size[0] - 1) / 2, (size[1] - 1) / 2, 0))
    scan = slices.on_grid((size[1], size[0]), pixel, (float(middle[0]), float(middle[1])))
    sinograms = torch.from_numpy(slices.filled() / np.float32(slices.mu_water_per_mm))
    water = filtered_back_projection(sinograms, scan, filter_name, water=1.0)[:, 0].numpy()
    hu: FloatArray = 1000 * (water - 1)
    x = plane.origin[0] - slices.isocentre_mm[0] + np.arange(size[0]) * pixel
    y = plane.origin[1] - slices.isocentre_mm[1] + np.arange(size[1]) * pixel
    hu[:, np.hypot(y[:, None], x) > slices.widest_field_mm] = AIR_HU
    return hu.clip(-1024, None)


def _slice_spacing(slices: MeasuredSlices) -> float:
    steps = np.diff(slices.positions_mm)
    if not len(steps):
        return _LONE_SLICE_MM
    if np.ptp(steps) > _UNEVEN * steps.mean():
        raise InputError(
            f"the slices of this scan are not evenly spaced ({steps.min():.2f} to {steps.max():.2f} mm apart); "
            "give the table positions with gaps between them one by one"
        )
    return float(steps.mean())


def _in_plane(grid: Geometry) -> bool:
    square = abs(grid.spacing[0] - grid.spacing[1]) < 1e-3 * grid.spacing[0]
    return (
        square
        and np.allclose(np.abs(np.reshape(grid.direction, (3, 3))), np.eye(3), atol=1e-3)
        and all(grid.direction[i] > 0 for i in (0, 4))
    )


def _own_plane(slices: MeasuredSlices) -> Geometry:
    bin_mm = slices.geometry.detector_pitch_mm / slices.geometry.magnification
    reach = slices.widest_field_mm
    pixel = max(bin_mm, FINEST_PIXEL_MM, 2 * reach / 1024)
    side = max(1, math.ceil(2 * reach / pixel))
    corner = -(side - 1) / 2 * pixel
    x, y = slices.isocentre_mm
    return Geometry((side, side, 1), (pixel, pixel, 1.0), (x + corner, y + corner, 0.0))
