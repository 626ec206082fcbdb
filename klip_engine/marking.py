"""What is marked at a rate of false alarms: from a score map and what is usual to findings and scores per slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from klip_engine.detection import Finding, SliceScore
from klip_engine.scoring.null import NullDistribution
from klip_engine.scoring.regions import Region, find_regions
from klip_engine.volume import BoolArray, FloatArray, Geometry

SourceSlices = tuple[tuple[int, int], ...] | None
"""For each working slice the range [first, last) of source slices behind it; None where the source is not axial."""


@dataclass(frozen=True)
class Marked:
    """What scores above `threshold`: a label map uint16 [z, y, x], 0 = nothing, and its regions by strength.

    notices: sentences the reader should see.
    """

    threshold: float
    regions: npt.NDArray[np.uint16]
    findings: tuple[Finding, ...]
    notices: tuple[str, ...] = ()


def mark(
    score: FloatArray,
    body: BoolArray,
    geometry: Geometry,
    source_slices: SourceSlices,
    null: NullDistribution,
    false_alarms: float,
) -> Marked:
    """Mark what scores higher than all but a share `false_alarms` of the usual slices.

    score, body: [z, y, x] on the working grid, whose place in the patient is `geometry`.
    """
    threshold = null.threshold(false_alarms)
    labels, regions = find_regions(score, body, threshold)
    findings = tuple(_finding(region, geometry, source_slices, null) for region in regions)
    return Marked(threshold, labels, findings, null.rate_notices(false_alarms))


def slice_scores(
    maxima: FloatArray, geometry: Geometry, source_slices: SourceSlices, null: NullDistribution
) -> tuple[SliceScore, ...]:
    """The highest score of each working slice [z], with its place and p-value."""
    heights = geometry.origin[2] + geometry.spacing[2] * np.arange(len(maxima))
    return tuple(
        SliceScore(_source_index(source_slices, z), float(heights[z]), float(score), null.p_value(float(score)))
        for z, score in enumerate(maxima)
    )


def _source_index(source_slices: SourceSlices, z: int) -> int:
    """The source slice in the middle of a working slice, or the working slice's own number."""
    if source_slices is None:
        return z
    first, last = source_slices[z]
    return (first + last - 1) // 2


def _finding(region: Region, geometry: Geometry, source_slices: SourceSlices, null: NullDistribution) -> Finding:
    x, y, z = geometry.to_lps(region.centroid)
    return Finding(
        region.label,
        region.score,
        null.p_value(region.score),
        (float(x), float(y), float(z)),
        region.voxels * float(np.prod(geometry.spacing)) / 1000,
        _slice_range(region, source_slices),
    )


def _slice_range(region: Region, source_slices: SourceSlices) -> tuple[int, int]:
    """First and last source slice behind a region, or the working slices' own numbers."""
    if source_slices is None:
        return region.first_slice, region.last_slice
    ends = source_slices[region.first_slice], source_slices[region.last_slice]
    return min(first for first, _ in ends), max(last - 1 for _, last in ends)
