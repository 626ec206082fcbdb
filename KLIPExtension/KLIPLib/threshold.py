"""Marks a result at another accepted rate of false alarms, without a new run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .colours import score_scale
from .marking import mark
from .segments import has_surfaces, make_surfaces


def set_rate(result: Any, false_alarms: float) -> float:
    """Mark a result as `detect --false-alarms` would have, in the nodes it has; returns the threshold of the score.

    false_alarms: accepted share of healthy slices on which anything is marked, from 0 to 1. The colours of scores
    stay, so that what was yellow remains yellow. Raises InputError where the result's folder is gone, UsageError
    for a rate that is none; nothing is changed then.
    """
    saved = result.saved
    marked = saved.at(false_alarms)
    surfaces = has_surfaces(result.segmentation)
    mark(
        result,
        marked.regions,
        [asdict(finding) for finding in marked.findings],
        saved.document["slices"],
        score_scale(saved.document),
        threshold=marked.threshold,
        false_alarms=false_alarms,
    )
    if surfaces:
        make_surfaces(result.segmentation)
    return float(marked.threshold)
