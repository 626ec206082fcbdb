"""Where in a CT a lesion may lie: homogeneous organs and lungs, found by density and texture.

The rules are in millimetres and Hounsfield units, so that they find the same tissue on every grid. They are
made for placing synthetic lesions in healthy-looking scans; they are no organ segmentation.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from klip_engine.volume import BoolArray, CTVolume, FloatArray, body_mask

ORGAN_HU = (0.0, 200.0)
ORGAN_MAX_STD_HU = 35.0
ORGAN_MIN_AREA_MM2 = 3000.0
LUNG_HU = (-960.0, -500.0)
"""Gas in the trachea and the bowel is below."""
LUNG_MAX_MEAN_HU = -600.0
LUNG_MIN_AREA_MM2 = 1000.0
SKIN_MM = 10.0

SMOOTHING_MM = 1.5
"""Takes the noise off thin slices before a voxel is called organ or lung."""
_TEXTURE_MM = 4.0
"""Standard deviation of the Gaussian window of the local mean and standard deviation."""


def homogeneous_organ(volume: CTVolume) -> BoolArray:
    """Mask [z, y, x] of homogeneous organs, liver and spleen mostly, some millimetres inside their edge.

    0..200 HU, local standard deviation below 35 HU, connected over at least 30 cm2 in the slice.
    """
    smooth = smooth_in_slice(volume, volume.hu, SMOOTHING_MM)
    mean = smooth_in_slice(volume, smooth, _TEXTURE_MM)
    variance = smooth_in_slice(volume, np.square(smooth - mean), _TEXTURE_MM)
    dense = (smooth > ORGAN_HU[0]) & (smooth < ORGAN_HU[1]) & (mean > ORGAN_HU[0]) & (mean < ORGAN_HU[1])
    organ = dense & (variance < ORGAN_MAX_STD_HU**2)
    opened = _in_slice(volume, organ, sitk.BinaryMorphologicalOpening, radius_mm=8.0)
    labels, count = _components_in_slice(opened)
    areas = np.bincount(labels.ravel(), minlength=count + 1) * _pixel_area_mm2(volume)
    kept = areas >= ORGAN_MIN_AREA_MM2
    kept[0] = False
    return kept[labels]


def lung(volume: CTVolume, rim_mm: float = 2.0) -> BoolArray:
    """Mask [z, y, x] of the lungs with the vessels inside them, without trachea and bowel gas.

    -960..-500 HU inside the body, connected over at least 10 cm2 in the slice with a mean below -600 HU;
    gaps of up to 8 mm (vessels, airways) are closed and the outermost `rim_mm` are left out.
    """
    spacing_x, spacing_y, _ = volume.geometry.spacing
    smooth = smooth_in_slice(volume, volume.hu, SMOOTHING_MM)
    airy = (smooth > LUNG_HU[0]) & (smooth < LUNG_HU[1])
    airy &= body_mask(volume.hu, (spacing_x + spacing_y) / 2)
    opened = _in_slice(volume, airy, sitk.BinaryMorphologicalOpening, radius_mm=3.0)  # cuts the rim of gas off
    labels, count = _components_in_slice(opened)
    voxels = np.bincount(labels.ravel(), minlength=count + 1)
    mean = np.bincount(labels.ravel(), smooth.ravel(), minlength=count + 1) / np.maximum(voxels, 1)
    kept = (voxels * _pixel_area_mm2(volume) >= LUNG_MIN_AREA_MM2) & (mean < LUNG_MAX_MEAN_HU)
    kept[0] = False
    closed = _in_slice(volume, kept[labels], sitk.BinaryMorphologicalClosing, radius_mm=4.0)
    return _in_slice(volume, closed, sitk.BinaryErode, radius_mm=rim_mm) if rim_mm > 0 else closed


def soft_tissue(volume: CTVolume) -> BoolArray:
    """Mask [z, y, x] of organs and muscle at least 10 mm below the skin: 0..200 HU once the noise is smoothed."""
    spacing_x, spacing_y, _ = volume.geometry.spacing
    smooth = smooth_in_slice(volume, volume.hu, SMOOTHING_MM)
    body = body_mask(volume.hu, (spacing_x + spacing_y) / 2)
    deep = _in_slice(volume, body, sitk.BinaryErode, radius_mm=SKIN_MM)
    return deep & (smooth > ORGAN_HU[0]) & (smooth < ORGAN_HU[1])


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
    image = sitk.GetImageFromArray(array.astype(np.float32, copy=False))
    variance = [(sigma_mm / spacing) ** 2 for spacing in volume.geometry.spacing[:2]]
    width = 2 * math.ceil(4 * math.sqrt(max(variance))) + 1
    smooth = sitk.DiscreteGaussian(
        image, variance=[*variance, 0.0], maximumKernelWidth=width, maximumError=0.001, useImageSpacing=False
    )
    return sitk.GetArrayFromImage(smooth)


def _in_slice(volume: CTVolume, mask: BoolArray, morphology: object, *, radius_mm: float) -> BoolArray:
    """A binary morphological filter with a disc of that radius."""
    radius = [max(1, round(radius_mm / spacing)) for spacing in volume.geometry.spacing[:2]]
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    return sitk.GetArrayFromImage(morphology(image, [*radius, 0])).astype(bool)  # type: ignore[operator]


def _components_in_slice(mask: BoolArray) -> tuple[npt.NDArray[np.int64], int]:
    """Components connected within their slice, labelled 1..count over the whole array."""
    labels = np.zeros(mask.shape, dtype=np.int64)
    count = 0
    for z, plane in enumerate(mask):
        found = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(plane.astype(np.uint8))))
        labels[z] = np.where(found > 0, found + count, 0)
        count += int(found.max(initial=0))
    return labels, count


def _pixel_area_mm2(volume: CTVolume) -> float:
    return volume.geometry.spacing[0] * volume.geometry.spacing[1]
