"""Which slice a result is shown on, and how bright its scores are: the same in report, curve and summary page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from klip_engine.detection import Finding, SliceScore


def shown_slice(slices: Sequence[SliceScore], finding: Finding | None) -> SliceScore | None:
    """The slice a finding is shown on; without a finding the one with the highest score; None without scores.

    Of the finding's slices the one that has the finding's score, or, where a stronger finding lies on that one
    too and takes its score, the one nearest to the finding's centre.
    """
    scored = [one for one in slices if math.isfinite(one.score)]
    if finding is None or not scored:
        return max(scored, key=lambda one: one.score, default=None)
    first, last = finding.slice_range
    own = [one for one in scored if first <= one.index <= last] or scored
    peaks = [one for one in own if one.score == finding.score]
    return min(peaks or own, key=lambda one: abs(one.position_mm - finding.centroid_lps_mm[2]))


def score_top(slices: Sequence[SliceScore], findings: Sequence[Finding], threshold: float | None) -> float:
    """The score at the bright end of the colour scale: the highest one, and never below the threshold."""
    scores = [*(one.score for one in slices), *(finding.score for finding in findings), threshold or 0.0]
    return max((score for score in scores if math.isfinite(score)), default=0.0) or 1.0
