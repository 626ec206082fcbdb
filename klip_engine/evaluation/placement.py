"""Finding a place for a lesion: inside one tissue, or on the wall of the lung that lies lowest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from klip_engine.evaluation.shapes import Box, Crescent, Pose, Relief, Shape, coverage
from klip_engine.evaluation.tissue import SMOOTHING_MM, Indices, Room, smooth_in_slice
from klip_engine.volume import BoolArray, CTVolume, FloatArray, Geometry

Diameters = tuple[float, float, float]

_PLACES_TRIED = 60
_WALLS_TRIED = 20
_LATTICE_MM = 4.0
_RAY_MM = 1.0
_WALL_HU = -400.0
_DEEPEST_WALL_MM = 8.0
"""From the last voxel called lung to the wall's density."""
_AIR_LEFT_MM = 4.0
_STEEPEST = 3.0
"""Of the wall, mm down per mm across: beyond, it is another part of the lung."""


@dataclass(frozen=True)
class Place:
    """Where a lesion goes: its pose and, for fluid, the wall it lies on in the frame of the pose."""

    pose: Pose
    wall_mm: Relief = ()


def place_in_tissue(
    shape: Shape,
    axes: npt.NDArray[np.float64],
    volume: CTVolume,
    room: Room,
    rng: np.random.Generator,
    *,
    tolerance: float,
    max_std_hu: float,
) -> Place | None:
    """A random place that fits the shape: any voxel of the tissue first, then the deepest ones.

    tolerance: share of the shape that may lie outside the tissue; max_std_hu: largest standard deviation of the
    smoothed tissue under it (two organs side by side differ in their smoothed density).
    """
    spots, depths = room.deeper_than(min(shape.diameters_mm) / 2 if tolerance == 0 else 0)
    if not len(spots):
        return None
    for spot in _some_and_the_deepest(spots, depths, rng.permutation(len(spots))):
        pose = pose_at(volume.geometry.to_lps(np.array(np.unravel_index(spot, room.mask.shape))[::-1]), axes)
        box, weight = coverage(shape, pose, volume.geometry, sub_voxels=1)
        outside = float(weight[~room.mask[box]].sum())
        if outside <= tolerance * float(weight.sum()) and _is_even(volume, box, weight > 0, max_std_hu):
            return Place(pose)
    return None


def _some_and_the_deepest(spots: Indices, depths: FloatArray, order: Indices) -> Iterator[int]:
    """The first spots in this order, then the deepest ones; of equally deep ones the earlier in this order."""
    yield from spots[order[:_PLACES_TRIED]]
    ordered = depths[order]
    last = max(0, len(ordered) - _PLACES_TRIED)
    deep = np.flatnonzero(ordered >= np.partition(ordered, last)[last])
    yield from spots[order[deep[np.argsort(-ordered[deep], kind="stable")[:_PLACES_TRIED]]]]


def place_on_dependent_wall(
    size_mm: Diameters,
    axes: npt.NDArray[np.float64],
    volume: CTVolume,
    lungs: Room,
    rng: np.random.Generator,
) -> Place | None:
    """A random place for a layer of fluid on the back of a lung (the patient lies on it: LPS +y is down).

    The wall is followed on a lattice in mm of the patient. All along it, the lung must be deeper than the fluid,
    and the middle of the fluid must not lie much above its ends.
    """
    spots = lungs.spots
    if not len(spots) or lungs.height_mm < 0.9 * size_mm[2]:  # no need to try: shorter than the fluid
        return None
    drawn = spots[rng.integers(len(spots), size=_WALLS_TRIED)]
    hu_image, lung_image = lungs.images
    for spot in np.stack(np.unravel_index(drawn, lungs.mask.shape), axis=1):
        seed = volume.geometry.to_lps(spot[::-1])
        for middle in (seed, None):
            found = _wall(size_mm, seed if middle is None else middle, hu_image, lung_image)
            if found is None:
                break
            wall, room = found
            if middle is not None:  # slide sideways to the lowest point of the middle row
                centre_row = wall[len(wall) // 2]
                offset = (int(np.nanargmax(centre_row)) / (len(centre_row) - 1) - 0.5) * size_mm[0]
                seed = seed + np.array([np.clip(offset, -size_mm[0] / 4, size_mm[0] / 4), 0.0, 0.0])
                continue
            place = _on_wall(size_mm, axes, seed, wall, room)
            if place is not None:
                return place
    return None


def _wall(
    size_mm: Diameters, middle: npt.NDArray[np.float64], hu_image: sitk.Image, lung_image: sitk.Image
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """LPS y of the lung's back wall on a lattice [w, u] around a point and the depth of lung before it, in mm.

    NaN where there is no wall; None where there is none in the middle.
    """
    low, high = _y_range(hu_image)
    columns, rows = (2 * max(2, round(extent / 2 / _LATTICE_MM)) + 1 for extent in (size_mm[0], size_mm[2]))
    lattice = Geometry(
        (columns, int((high - low) / _RAY_MM) + 1, rows),
        (size_mm[0] / (columns - 1), _RAY_MM, size_mm[2] / (rows - 1)),
        (float(middle[0]) - size_mm[0] / 2, low, float(middle[2]) - size_mm[2] / 2),
    )
    reference = lattice.empty_image()
    hu = sitk.GetArrayFromImage(sitk.Resample(hu_image, reference, sitk.Transform(), sitk.sitkLinear, -2000.0))
    is_lung = sitk.GetArrayFromImage(
        sitk.Resample(lung_image, reference, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    ).astype(bool)
    steps = np.arange(hu.shape[1])[:, None]
    last = np.where(is_lung.any(axis=1), hu.shape[1] - 1 - is_lung[:, ::-1].argmax(axis=1), -1)[:, None]
    after = (steps > last) & (hu > _WALL_HU)
    wall_step = after.argmax(axis=1)
    exists = (last[:, 0] >= 0) & after.any(axis=1) & ((wall_step - last[:, 0]) * _RAY_MM <= _DEEPEST_WALL_MM)
    not_lung = ~is_lung & (steps <= last)
    top = np.where(not_lung.any(axis=1), hu.shape[1] - 1 - not_lung[:, ::-1].argmax(axis=1), -1)
    room = np.where(exists, (wall_step - top - 1) * _RAY_MM, 0.0)
    wall = np.where(exists, low + wall_step * _RAY_MM, np.nan)
    if not np.isfinite(wall[rows // 2]).any():
        return None
    return wall, room


def _on_wall(
    size_mm: Diameters,
    axes: npt.NDArray[np.float64],
    middle: npt.NDArray[np.float64],
    wall: npt.NDArray[np.float64],
    room: npt.NDArray[np.float64],
) -> Place | None:
    """The layer on this wall, where the lung holds it."""
    across, along = np.linspace(-1, 1, wall.shape[1]), np.linspace(-1, 1, wall.shape[0])[:, None]
    thickness = Crescent(size_mm).thickness_mm(across + 0 * along, along + 0 * across)
    needed = thickness > 1.0
    if np.isnan(wall[needed]).any() or (room[needed] < thickness[needed] + _AIR_LEFT_MM).any():
        return None
    filled = np.where(needed, wall, np.nan)
    step = size_mm[0] / (wall.shape[1] - 1)
    if np.nanmax(np.abs(np.diff(filled, axis=1))) > _STEEPEST * step:
        return None
    centre_row = filled[wall.shape[0] // 2]
    if np.nanmax(centre_row) > centre_row[wall.shape[1] // 2] + size_mm[1] / 4:
        return None
    filled = _extended(_extended(filled).T).T
    y = float(filled[wall.shape[0] // 2, wall.shape[1] // 2])
    relief = tuple(tuple(round(float(value - y), 2) for value in row) for row in filled)
    return Place(pose_at((float(middle[0]), y, float(middle[2])), axes), relief)


def _extended(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rows with the gaps (NaN) filled from their neighbours; rows without any value stay empty."""
    out = rows.copy()
    places = np.arange(rows.shape[1])
    for row in out:
        known = np.isfinite(row)
        if known.any():
            row[~known] = np.interp(places[~known], places[known], row[known])
    return out


def _y_range(image: sitk.Image) -> tuple[float, float]:
    size = image.GetSize()
    corners = [
        image.TransformIndexToPhysicalPoint((i, j, k))[1]
        for i in (0, size[0] - 1)
        for j in (0, size[1] - 1)
        for k in (0, size[2] - 1)
    ]
    return min(corners), max(corners)


def _is_even(volume: CTVolume, box: Box, inside: BoolArray, max_std_hu: float) -> bool:
    """True when one tissue lies under a lesion."""
    if not inside.any():
        return False
    if np.isinf(max_std_hu):
        return True
    around = cropped(volume, box)
    smooth = smooth_in_slice(around, around.hu, SMOOTHING_MM)
    return float(smooth[inside].std()) < max_std_hu


def cropped(volume: CTVolume, box: Box) -> CTVolume:
    """The part of a volume in a box."""
    hu = volume.hu[box]
    x, y, z = (float(value) for value in volume.geometry.to_lps([part.start for part in reversed(box)]))
    size = (hu.shape[2], hu.shape[1], hu.shape[0])
    geometry = volume.geometry
    return CTVolume(hu, Geometry(size, geometry.spacing, (x, y, z), geometry.direction))


def pose_at(centre_lps_mm: Sequence[float] | npt.NDArray[np.float64], axes: npt.NDArray[np.float64]) -> Pose:
    """A pose from a centre in LPS mm and a matrix of axes."""
    x, y, z = (float(value) for value in centre_lps_mm)
    return Pose((x, y, z), tuple(float(value) for value in axes.ravel()))
