"""Do the projections agree with their own geometry? Asked before an hour is spent on them.

A line measured from both sides must give the same value (`opposite_rays`). Where parallel beams cover only half a
turn, the Helgason-Ludwig conditions are asked instead (`moments`).

What no such test can see: parallel beams with a mirrored detector or reversed angles, and a fan with detector and
rotation both reversed, are perfect scans of a mirrored patient; the same constant added to all angles is a turned
patient; an object that looks alike from everywhere looks alike in any order. Nothing is asked of fans over so short
an arc that no line was measured twice, and of truncated parallel beams over half a turn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from klip_engine.operators import FanGeometry
from klip_engine.projections import Projections
from klip_engine.scans.measured import MeasuredSlices
from klip_engine.scans.moments import moments
from klip_engine.scans.opposite_rays import LEAST_PAIRS, opposite_rays
from klip_engine.scans.slicing import to_slices

_SLICES = 6
"""How many slices are asked."""
_BINS = 160
_LEAST_ARC = math.radians(30)
_MANY_VIEWS = 12


@dataclass(frozen=True)
class Doubt:
    """sentence: what does not fit, and what to check; decisive: the data contradict the geometry, and what is
    reconstructed with it is no image."""

    sentence: str
    decisive: bool = False


def doubts_about(projections: Projections) -> tuple[Doubt, ...]:
    """What does not fit in a scan, asked of a few of its slices.

    Raises InputError for scans that cannot be taken slice by slice, as `to_slices` does.
    """
    return consistency(to_slices(projections, at_most=_SLICES, filled=False))


def consistency(slices: MeasuredSlices) -> tuple[Doubt, ...]:
    """What does not fit; nothing where nothing was found, or where nothing can be asked."""
    coarse = _coarse(slices)
    short = _short_arc(coarse)
    pairs = opposite_rays(coarse)
    if pairs.count >= LEAST_PAIRS:
        found = [Doubt(*words) for words in pairs.disagreements()]
    elif isinstance(coarse.geometry, FanGeometry) or _is_truncated(coarse):
        found = []
    else:
        found = [Doubt(*words) for words in moments(coarse)]
    return (*short, *found)


def _coarse(slices: MeasuredSlices) -> MeasuredSlices:
    """A few slices, with neighbouring bins averaged: what is asked are large things, and noise is not one."""
    count = min(_SLICES, len(slices))
    chosen = np.unique(np.linspace(0, len(slices) - 1, count).round().astype(int))
    few = slices.averaged([(int(i), int(i) + 1) for i in chosen])
    return few.coarser(max(1, slices.geometry.detector_count // _BINS))


def _short_arc(slices: MeasuredSlices) -> tuple[Doubt, ...]:
    angle = np.unwrap(slices.geometry.view_angles_rad)
    arc = float(np.ptp(angle))
    if len(angle) < _MANY_VIEWS or arc > _LEAST_ARC:
        return ()
    return (
        Doubt(
            f"All {len(angle)} views lie within {math.degrees(arc):.1f} degrees, which make no image of a slice: "
            "were angles in radians taken for degrees?"
        ),
    )


def _is_truncated(slices: MeasuredSlices) -> bool:
    """True where the outermost bins see more than a tenth of the densest ray."""
    data = slices.filled()
    ends = np.maximum(data[..., :2].mean(axis=-1), data[..., -2:].mean(axis=-1))
    return bool(np.quantile(ends, 0.95) > 0.1 * np.quantile(data, 0.999))
