"""The working grid of a prior, and the way of a CT volume there and back; axes as in `klip_engine.volume`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from klip_engine.body import BODY_THRESHOLD_HU, body_mask
from klip_engine.errors import InputError
from klip_engine.volume import AIR_HU, BoolArray, CTVolume, FloatArray, Geometry


@dataclass(frozen=True)
class WorkingGrid:
    """The axial grid a prior was trained on; millimetres, so that it means the same for every scanner.

    shape: (height, width) in pixels; pixel_mm: in-plane spacing; slice_mm: slices thinner than this are averaged.
    """

    shape: tuple[int, int] = (128, 160)
    pixel_mm: float = 3.0
    slice_mm: float = 3.0

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or not (self.pixel_mm > 0 and self.slice_mm > 0):
            raise InputError(f"a working grid of {self.shape} pixels of {self.pixel_mm} mm does not exist")

    def refined(self, factor: int) -> WorkingGrid:
        """The same field of view with `factor` times more pixels along each axis of the slice."""
        return replace(
            self,
            shape=(self.shape[0] * factor, self.shape[1] * factor),
            pixel_mm=self.pixel_mm / factor,
        )


@dataclass(frozen=True)
class WorkingVolume:
    """A volume brought onto a working grid.

    hu: [slice, y, x] float32 with everything outside the body set to air (unless asked otherwise);
    body: same shape, True inside the patient where it was scanned; geometry: the axis-aligned LPS grid both lie on;
    source_slices: for each working slice the range [first, last) of source slices it was averaged from, or
    None where the source is not axial; cut_off: fraction of the body that lies outside the grid.
    """

    hu: FloatArray
    body: BoolArray
    geometry: Geometry
    source_slices: tuple[tuple[int, int], ...] | None
    cut_off: float

    @property
    def measured(self) -> FloatArray:
        """HU, [slice, y, x]."""
        return self.hu

    @property
    def images(self) -> FloatArray:
        """What a prior sees, see `images_of_hu`."""
        return images_of_hu(self.hu)

    @staticmethod
    def values_of(images: FloatArray) -> FloatArray:
        """Images of a prior [n, 1, y, x] in HU, [n, y, x]."""
        hu: FloatArray = 1000 * images[:, 0]
        return hu


def images_of_hu(hu: FloatArray) -> FloatArray:
    """CT slices [n, y, x] in HU as priors see them: [n, 1, y, x], x = HU / 1000 within [-1, 1]."""
    return (hu / 1000).clip(-1, 1).astype(np.float32, copy=False)[:, None]


_OVERSAMPLING = 3
"""Sub-pixels per pixel and axis: a working pixel is the mean of 3 x 3 linear interpolations, which keeps the
noise texture of a CT slice (a single interpolation would smooth it or alias it, depending on the phase)."""


def to_working_grid(volume: CTVolume, grid: WorkingGrid, *, mask_table: bool = True) -> WorkingVolume:
    """Resample a volume onto the axial working grid, centred on the patient.

    Axial source slices of at least about `grid.slice_mm` are kept one to one; thinner ones are averaged in
    groups (the last group may be smaller); oblique and non-axial volumes are resampled to axial slices
    `grid.slice_mm` apart.
    Raises InputError when no body is found.
    """
    canvas, slabs = _canvas(volume.geometry, grid)
    hu = _area_mean(volume, canvas, slabs)
    unseen = np.isnan(hu)
    hu[unseen] = AIR_HU
    body = body_mask(hu, grid.pixel_mm)
    if not body.any():
        raise InputError(
            "no body was found: nothing in the image is denser than "
            f"{BODY_THRESHOLD_HU:.0f} HU over a patient's size; is this a CT in Hounsfield units?"
        )
    x0, y0 = _centred_window(body, grid.shape)
    if mask_table:
        hu[~body] = AIR_HU
    body &= ~_near(unseen, grid.pixel_mm)
    origin = canvas.to_lps((x0, y0, 0))
    cropped = Geometry(
        (grid.shape[1], grid.shape[0], canvas.size[2]), canvas.spacing, (origin[0], origin[1], origin[2])
    )
    inside = _crop(body, x0, y0, grid.shape, False)
    return WorkingVolume(
        _crop(hu, x0, y0, grid.shape, AIR_HU),
        inside,
        cropped,
        slabs,
        1.0 - float(inside.sum()) / float(body.sum()),
    )


def from_working_grid(
    array: npt.NDArray[Any], working: Geometry, target: Geometry, *, nearest: bool = False, outside: float = 0.0
) -> npt.NDArray[Any]:
    """Bring an array [z, y, x] from the working grid back to the grid of the input; keeps the dtype.

    Linear interpolation, or nearest neighbour for label maps. Voxels of the target within half a working voxel
    of the border take the border's value; farther ones take `outside`.
    """
    resample = sitk.ResampleImageFilter()
    resample.SetReferenceImage(target.empty_image())
    resample.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
    resample.SetDefaultPixelValue(float(outside))
    if working.size[2] == 1:  # a single slice has no neighbour to interpolate with: give it its own thickness
        array = np.repeat(array, 2, axis=0)
        working = replace(
            working,
            size=(working.size[0], working.size[1], 2),
            origin=tuple(working.to_lps((0, 0, -0.25))),
            spacing=(working.spacing[0], working.spacing[1], working.spacing[2] / 2),
        )
    image = working.image(np.ascontiguousarray(array))
    resample.SetOutputPixelType(image.GetPixelID())
    return sitk.GetArrayFromImage(resample.Execute(image))


def labels_from_working_grid(
    labels: npt.NDArray[np.uint16], working: Geometry, target: Geometry
) -> npt.NDArray[np.uint16]:
    """A label map [z, y, x], 0 = nothing, brought back by nearest neighbour; only looks where there are labels."""
    found = np.zeros(target.size[::-1], dtype=labels.dtype)
    if not labels.any():
        return found
    low, high = (f(np.argwhere(labels), axis=0)[::-1] for f in (np.min, np.max))
    corners = np.stack(np.meshgrid(*zip(low - 1, high + 1, strict=True)), axis=-1).reshape(-1, 3)
    reached = target.to_index(working.to_lps(corners))
    first = np.clip(np.floor(reached.min(axis=0)), 0, target.size).astype(int)
    last = np.clip(np.ceil(reached.max(axis=0)) + 1, 0, target.size).astype(int)
    if (last <= first).any():
        return found
    size, origin = (last - first).tolist(), target.to_lps(first).tolist()
    part = replace(target, size=(size[0], size[1], size[2]), origin=(origin[0], origin[1], origin[2]))
    x, y, z = (slice(a, b) for a, b in zip(first, last, strict=True))
    found[z, y, x] = from_working_grid(labels, working, part, nearest=True)
    return found


def _canvas(source: Geometry, grid: WorkingGrid) -> tuple[Geometry, tuple[tuple[int, int], ...] | None]:
    """The axis-aligned working lattice over the whole source, and the source slices behind each of its slices."""
    low, high = _bounding_box(source)
    size_x, size_y = (max(1, math.ceil((high[a] - low[a]) / grid.pixel_mm)) for a in (0, 1))
    centre = (low + high) / 2
    origin_x = float(centre[0] - (size_x - 1) / 2 * grid.pixel_mm)
    origin_y = float(centre[1] - (size_y - 1) / 2 * grid.pixel_mm)
    if not source.is_axial:
        size_z = max(1, math.floor((high[2] - low[2]) / grid.slice_mm))
        origin_z = float(centre[2] - (size_z - 1) / 2 * grid.slice_mm)
        spacing = (grid.pixel_mm, grid.pixel_mm, grid.slice_mm)
        return Geometry((size_x, size_y, size_z), spacing, (origin_x, origin_y, origin_z)), None
    count, step = source.size[2], source.spacing[2]
    group = min(count, max(1, math.floor(grid.slice_mm / step + 1 / 3)))
    slabs = tuple((first, min(first + group, count)) for first in range(0, count, group))
    if source.slice_normal[2] < 0:
        slabs = slabs[::-1]
    middle = ((source.size[0] - 1) / 2, (source.size[1] - 1) / 2)
    lowest = float(source.to_lps((*middle, slabs[0][0] + (group - 1) / 2))[2])
    return Geometry(
        (size_x, size_y, len(slabs)),
        (grid.pixel_mm, grid.pixel_mm, group * step),
        (origin_x, origin_y, lowest),
    ), slabs


def _bounding_box(geometry: Geometry) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """LPS corners of the smallest axis-aligned box around the voxels, their half widths included."""
    edges = [(-0.5, n - 0.5) for n in geometry.size]
    corners = np.array([[i, j, k] for i in edges[0] for j in edges[1] for k in edges[2]])
    points = geometry.to_lps(corners)
    return points.min(axis=0), points.max(axis=0)


def _area_mean(volume: CTVolume, canvas: Geometry, slabs: tuple[tuple[int, int], ...] | None) -> FloatArray:
    """Mean HU over each voxel of the canvas: 3 x 3 sub-pixels, times the source slices behind it (for volumes
    that are not axial: heights about as far apart as the voxels). NaN where a part of it was not scanned."""
    n = _OVERSAMPLING
    heights = 1 if slabs else max(1, round(canvas.spacing[2] / min(volume.geometry.spacing)))
    step = volume.geometry.spacing[2] if slabs else canvas.spacing[2] / heights
    sub_spacing = (canvas.spacing[0] / n, canvas.spacing[1] / n, step)
    corner = [canvas.origin[axis] - sub_spacing[axis] * (n - 1) / 2 for axis in (0, 1)]
    mean = np.empty(canvas.size[::-1], dtype=np.float32)
    source = volume.geometry.image(volume.hu)
    resample = sitk.ResampleImageFilter()
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetDefaultPixelValue(float("nan"))
    resample.SetOutputSpacing(sub_spacing)
    for z in range(canvas.size[2]):  # slice by slice: memory stays flat however long the scan is
        height, slices = canvas.origin[2] + z * canvas.spacing[2] - (heights - 1) / 2 * step, heights
        if slabs:
            slices = slabs[z][1] - slabs[z][0]
            height = _lowest(volume.geometry, slabs[z])
        resample.SetSize([canvas.size[0] * n, canvas.size[1] * n, slices])
        resample.SetOutputOrigin([*corner, height])
        fine = sitk.GetArrayFromImage(resample.Execute(source))
        mean[z] = fine.reshape(slices, canvas.size[1], n, canvas.size[0], n).mean(axis=(0, 2, 4))
    return mean


def _near(unseen: BoolArray, pixel_mm: float, margin_mm: float = 9.0) -> BoolArray:
    """Voxels at most `margin_mm` (in the slice) from what was not scanned: the cut itself looks like an edge."""
    if not unseen.any():
        return unseen
    radius = round(margin_mm / pixel_mm)
    image = sitk.GetImageFromArray(unseen.astype(np.uint8))
    return sitk.GetArrayFromImage(sitk.BinaryDilate(image, [radius, radius, 0])).astype(bool)


def _lowest(geometry: Geometry, slab: tuple[int, int]) -> float:
    """LPS z of the lowest slice of a slab, in the middle of the picture."""
    middle = ((geometry.size[0] - 1) / 2, (geometry.size[1] - 1) / 2)
    return min(float(geometry.to_lps((*middle, k))[2]) for k in (slab[0], slab[1] - 1))


def _centred_window(body: BoolArray, shape: tuple[int, int]) -> tuple[int, int]:
    """First column and row of the grid on the canvas: centred on the median bounding box of the body."""
    return _centred_start(np.any(body, axis=1), shape[1]), _centred_start(np.any(body, axis=2), shape[0])


def _centred_start(profiles: npt.NDArray[Any], length: int) -> int:
    """Start of an interval of `length` centred on the median of the middles of the profiles [slice, position]."""
    occupied = [np.flatnonzero(profile) for profile in profiles]
    middles = [(int(places[0]) + int(places[-1])) / 2 for places in occupied if places.size]
    return round(float(np.median(middles)) - (length - 1) / 2)


def _crop(array: npt.NDArray[Any], x0: int, y0: int, shape: tuple[int, int], fill: float) -> npt.NDArray[Any]:
    """The window [y0 : y0 + height, x0 : x0 + width] of every slice, `fill` where it leaves the canvas."""
    height, width = shape
    out = np.full((array.shape[0], height, width), fill, dtype=array.dtype)
    y_from, y_to = max(0, y0), min(array.shape[1], y0 + height)
    x_from, x_to = max(0, x0), min(array.shape[2], x0 + width)
    if y_from < y_to and x_from < x_to:
        out[:, y_from - y0 : y_to - y0, x_from - x0 : x_to - x0] = array[:, y_from:y_to, x_from:x_to]
    return out
