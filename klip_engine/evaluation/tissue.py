"""Where in a CT a lesion may lie: homogeneous organs and lungs, found by density and texture.

The rules are in millimetres and Hounsfield units, so that they find the same tissue on every grid. They are
made for placing synthetic lesions in healthy-looking scans; they are no organ segmentation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from klip_engine.body import body_mask
from klip_engine.volume import BoolArray, CTVolume, FloatArray

Indices = npt.NDArray[np.int64]

ORGAN_HU = (0.0, 200.0)
ORGAN_MAX_STD_HU = 35.0
ORGAN_MIN_AREA_MM2 = 3000.0
LUNG_HU = (-960.0, -500.0)
"""Gas in the trachea and the bowel is below."""
LUNG_MAX_MEAN_HU = -600.0
LUNG_MIN_AREA_MM2 = 1000.0
LUNG_RIM_MM = 2.0
SKIN_MM = 10.0

SMOOTHING_MM = 1.5
"""Takes the noise off thin slices before a voxel is called organ or lung."""
_TEXTURE_MM = 4.0
"""Standard deviation of the Gaussian window of the local mean and standard deviation."""


class Room:
    """Where in one volume lesions may lie; mask [z, y, x]. What every lesion there needs is computed once."""

    def __init__(self, volume: CTVolume, mask: BoolArray) -> None:
        self.mask = mask
        self._volume = volume

    def deeper_than(self, depth: float) -> tuple[Indices, FloatArray]:
        """The voxels, as flat indices in the array's order, with more than that `depth_mm`, and theirs."""
        spots, depths = self._depths
        if depth <= 0:
            return spots, depths
        deep = depths > depth
        return spots[deep], depths[deep]

    @cached_property
    def spots(self) -> Indices:
        """All voxels, as flat indices in the array's order."""
        return np.flatnonzero(self.mask)

    @cached_property
    def height_mm(self) -> float:
        """Its extent along the patient, LPS z."""
        z, y = np.nonzero(self.mask.any(axis=2))
        rows = self.mask[z, y]
        ends = rows.argmax(axis=1), rows.shape[1] - 1 - rows[:, ::-1].argmax(axis=1)
        places = np.concatenate([np.stack([x, y, z], axis=1) for x in ends])
        geometry = self._volume.geometry
        return float(np.ptp((places * geometry.spacing) @ np.asarray(geometry.direction).reshape(3, 3)[2]))

    @cached_property
    def images(self) -> tuple[sitk.Image, sitk.Image]:
        """The volume's HU and the mask."""
        geometry = self._volume.geometry
        return geometry.image(self._volume.hu), geometry.image(self.mask.astype(np.uint8))

    @cached_property
    def _depths(self) -> tuple[Indices, FloatArray]:
        depth = depth_mm(self._volume, self.mask).ravel()
        spots = np.flatnonzero(depth > 0)
        return spots, depth[spots]


class Tissues:
    """The tissues of one volume, each found when it is first asked for; what several need is computed once.

    slices: which slices [z] to look at; the others hold no tissue. All rules but the body's work within a slice.
    """

    def __init__(self, volume: CTVolume, slices: BoolArray | None = None) -> None:
        self._volume = volume
        self._slices = np.arange(len(volume.hu)) if slices is None else np.flatnonzero(slices)
        self._spacing = volume.geometry.spacing[:2]

    @cached_property
    def organ(self) -> Room:
        """Homogeneous organs, liver and spleen mostly, some millimetres inside their edge.

        0..200 HU, local standard deviation below 35 HU, connected over at least 30 cm2 in the slice.
        """
        return self._room(self._organ(smooth) for smooth in self._smooth)

    @cached_property
    def lung(self) -> Room:
        """`lung_to_wall` without its outermost 2 mm."""
        whole = (self.lung_to_wall.mask[z] for z in self._slices)
        return self._room(_morphology(plane, self._spacing, sitk.BinaryErode, LUNG_RIM_MM) for plane in whole)

    @cached_property
    def lung_to_wall(self) -> Room:
        """The lungs with the vessels inside them, without trachea and bowel gas.

        -960..-500 HU inside the body, connected over at least 10 cm2 in the slice with a mean below -600 HU;
        gaps of up to 8 mm (vessels, airways) are closed.
        """
        return self._room(map(self._lung, self._smooth, self._body))

    @cached_property
    def soft(self) -> Room:
        """Organs and muscle at least 10 mm below the skin: 0..200 HU once the noise is smoothed."""
        return self._room(
            _morphology(body, self._spacing, sitk.BinaryErode, SKIN_MM) & _within(smooth, ORGAN_HU)
            for smooth, body in zip(self._smooth, self._body, strict=True)
        )

    def _organ(self, smooth: FloatArray) -> BoolArray:
        mean = _smoothed(smooth, self._spacing, _TEXTURE_MM)
        variance = _smoothed(np.square(smooth - mean), self._spacing, _TEXTURE_MM)
        organ = _within(smooth, ORGAN_HU) & _within(mean, ORGAN_HU) & (variance < ORGAN_MAX_STD_HU**2)
        labels = _components(_morphology(organ, self._spacing, sitk.BinaryMorphologicalOpening, 8.0))
        kept = np.bincount(labels.ravel()) * self._pixel_mm2 >= ORGAN_MIN_AREA_MM2
        kept[0] = False
        return kept[labels]

    def _lung(self, smooth: FloatArray, body: BoolArray) -> BoolArray:
        airy = _within(smooth, LUNG_HU) & body
        opened = _morphology(airy, self._spacing, sitk.BinaryMorphologicalOpening, 3.0)  # cuts the rim of gas off
        labels = _components(opened)
        pixels = np.bincount(labels.ravel())
        mean = np.bincount(labels.ravel(), smooth.ravel()) / np.maximum(pixels, 1)
        kept = (pixels * self._pixel_mm2 >= LUNG_MIN_AREA_MM2) & (mean < LUNG_MAX_MEAN_HU)
        kept[0] = False
        return _morphology(kept[labels], self._spacing, sitk.BinaryMorphologicalClosing, 4.0)

    def _room(self, planes: Iterable[BoolArray]) -> Room:
        mask = np.zeros(self._volume.hu.shape, dtype=bool)
        for z, plane in zip(self._slices, planes, strict=True):
            mask[z] = plane
        return Room(self._volume, mask)

    @cached_property
    def _smooth(self) -> list[FloatArray]:
        return [_smoothed(self._volume.hu[z], self._spacing, SMOOTHING_MM) for z in self._slices]

    @cached_property
    def _body(self) -> list[BoolArray]:
        body = body_mask(self._volume.hu, sum(self._spacing) / 2)
        return [body[z] for z in self._slices]

    @property
    def _pixel_mm2(self) -> float:
        return self._spacing[0] * self._spacing[1]


def depth_mm(volume: CTVolume, tissue: BoolArray) -> FloatArray:
    """Distance in mm from each voxel [z, y, x] of the tissue to the nearest one outside it; 0 outside.

    The array's border in the slice counts as outside; beyond the first and the last slice the tissue goes on.
    """
    bordered = tissue.copy()
    bordered[:, [0, -1], :] = False
    bordered[:, :, [0, -1]] = False
    if not bordered.any():
        return np.zeros(tissue.shape, dtype=np.float32)
    image = volume.geometry.image(bordered.astype(np.uint8))
    distance = sitk.SignedMaurerDistanceMap(
        image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
    )
    return np.maximum(sitk.GetArrayFromImage(distance), 0).astype(np.float32)


def smooth_in_slice(volume: CTVolume, array: npt.NDArray[np.float32], sigma_mm: float) -> FloatArray:
    """Gaussian smoothing within each slice of an array [z, y, x] with the volume's pixel spacing."""
    smooth = np.empty(array.shape, dtype=np.float32)
    for z, plane in enumerate(array):
        smooth[z] = _smoothed(plane, volume.geometry.spacing[:2], sigma_mm)
    return smooth


def _smoothed(plane: npt.NDArray[np.float32], spacing: Sequence[float], sigma_mm: float) -> FloatArray:
    image = sitk.GetImageFromArray(plane.astype(np.float32, copy=False))
    variance = [(sigma_mm / one) ** 2 for one in spacing]
    width = 2 * math.ceil(4 * math.sqrt(max(variance))) + 1
    smooth = sitk.DiscreteGaussian(
        image, variance=variance, maximumKernelWidth=width, maximumError=0.001, useImageSpacing=False
    )
    return sitk.GetArrayFromImage(smooth)


def _within(plane: FloatArray, limits: tuple[float, float]) -> BoolArray:
    return (plane > limits[0]) & (plane < limits[1])


def _morphology(plane: BoolArray, spacing: Sequence[float], morphology: object, radius_mm: float) -> BoolArray:
    """A binary morphological filter with a disc of that radius."""
    radius = [max(1, round(radius_mm / one)) for one in spacing]
    image = sitk.GetImageFromArray(plane.astype(np.uint8))
    return sitk.GetArrayFromImage(morphology(image, radius)).astype(bool)  # type: ignore[operator]


def _components(plane: BoolArray) -> npt.NDArray[np.uint32]:
    """Connected components, labelled from 1."""
    return sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(plane.astype(np.uint8))))
