"""Which slices are neighbours.

A stack is a row of slices that lie next to each other in one scan, no further apart than `REACH_MM`. Slices carry
the number of their stack; those of one stack stand one after another, in the order of the scan.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from klip_engine.volume import BoolArray

StackArray = npt.NDArray[np.int64]
"""The number of each slice's stack, [n]."""

REACH_MM = 6.0
"""Slices further apart are no neighbours: a nodule of 6 mm ends between them."""
FEWEST_SLICES = 8
"""Of a scan, below which its slices stand alone: too many of them would be ends."""
_ROUNDING_MM = 0.01


def within_reach(spacing_mm: float) -> bool:
    """Whether slices at this distance are neighbours."""
    return spacing_mm <= REACH_MM + _ROUNDING_MM


def have_neighbours(slices: int, spacing_mm: float) -> bool:
    """Whether a scan of so many slices at this distance is looked at as a stack."""
    return slices >= FEWEST_SLICES and within_reach(spacing_mm)


def standing_alone(stacks: StackArray) -> BoolArray:
    """Which slices have no neighbour, [n]."""
    _, stack, sizes = np.unique(stacks, return_inverse=True, return_counts=True)
    return sizes[stack] == 1


def between_neighbours(stacks: StackArray) -> BoolArray:
    """Which slices have a neighbour on either side, [n]."""
    same = stacks[1:] == stacks[:-1]
    before, after = np.zeros(len(stacks), dtype=bool), np.zeros(len(stacks), dtype=bool)
    before[1:], after[:-1] = same, same
    return before & after
