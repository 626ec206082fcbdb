"""The grey-scale window in which a finding is shown, by the tissue around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from klip_engine.body import body_mask
from klip_engine.volume import BoolArray, FloatArray

_AROUND_MM = 30
_LUNG_BELOW_HU = -400.0


@dataclass(frozen=True)
class Window:
    """A grey-scale window in HU: black at level - width / 2, white at level + width / 2."""

    name: str
    width: float
    level: float

    def grey(self, hu: FloatArray) -> npt.NDArray[np.uint8]:
        """HU of any shape to grey values 0..255."""
        unit = (hu - (self.level - self.width / 2)) / self.width
        return np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)


SOFT_TISSUE = Window("soft tissue", 400, 40)
LUNG = Window("lung", 1500, -600)


def window_around(hu: npt.NDArray[Any], region: BoolArray) -> Window:
    """LUNG where most of the body around a region is lung, else SOFT_TISSUE; both [y, x] of 1 mm pixels.

    Around: at most 30 mm away. The region itself does not count: gas in the bowel lies among soft tissue and is
    looked for there, a nodule lies in lung.
    """
    if not region.any():
        return SOFT_TISSUE
    mask = sitk.GetImageFromArray(region.astype(np.uint8))
    disc = sitk.GetArrayFromImage(sitk.BinaryDilate(mask, [_AROUND_MM, _AROUND_MM])) > 0
    around = hu[disc & ~region & body_mask(hu[None], 1.0)[0]]
    return LUNG if around.size and float(np.median(around)) < _LUNG_BELOW_HU else SOFT_TISSUE
