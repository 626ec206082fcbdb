"""Where the patient is in a CT, without the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from klip_engine.volume import BoolArray

BODY_THRESHOLD_HU = -400.0


def body_mask(hu: npt.NDArray[Any], pixel_mm: float) -> BoolArray:
    """The patient without the table: [z, y, x] HU to a mask of the same shape, holes (lungs, gut) filled.

    Threshold, opening in the slice by 6 mm (cuts the shell of a table off), connected components in 3D of at
    least a fifth of the largest, holes filled slice by slice.
    """
    radius = max(1, round(6.0 / pixel_mm))
    tissue = sitk.GetImageFromArray((hu > BODY_THRESHOLD_HU).astype(np.uint8))
    opened = sitk.BinaryMorphologicalOpening(tissue, [radius, radius, 0])
    components = sitk.RelabelComponent(sitk.ConnectedComponent(opened), sortByObjectSize=True)
    labels = sitk.GetArrayFromImage(components)
    sizes = np.bincount(labels.ravel())[1:]
    if not sizes.size:
        return np.zeros(hu.shape, dtype=bool)
    kept = (labels > 0) & (labels <= int((sizes >= 0.2 * sizes[0]).sum()))
    filled = [_fill_holes(mask) for mask in kept]
    return np.stack(filled)


def _fill_holes(mask: BoolArray) -> BoolArray:
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    return sitk.GetArrayFromImage(sitk.BinaryFillhole(image)).astype(bool)
