"""Measured CT scans: from a scanner's views to slices, whether they are consistent, and a first image of them."""

from klip_engine.scans.consistency import CONSISTENCY_SLICES, Doubt, consistency
from klip_engine.scans.measured import MeasuredSlices
from klip_engine.scans.reconstruction import hu_images, reconstruct
from klip_engine.scans.slicing import to_slices

__all__ = ["CONSISTENCY_SLICES", "Doubt", "MeasuredSlices", "consistency", "hu_images", "reconstruct", "to_slices"]
