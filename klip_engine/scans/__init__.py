"""Measured CT scans: from a scanner's views to slices, whether they are consistent, and first images of them."""

from klip_engine.scans.consistency import Doubt, consistency, doubts_about
from klip_engine.scans.measured import MeasuredSlices
from klip_engine.scans.reconstruction import hu_images, reconstruct
from klip_engine.scans.slicing import to_slices
from klip_engine.scans.total_variation import FEW_VIEWS, even_images

__all__ = [
    "FEW_VIEWS",
    "Doubt",
    "MeasuredSlices",
    "consistency",
    "doubts_about",
    "even_images",
    "hu_images",
    "reconstruct",
    "to_slices",
]
