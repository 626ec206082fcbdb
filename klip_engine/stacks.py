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


def stacks_of(slices: npt.NDArray[np.intp], spacing_mm: float) -> StackArray:
    """The stacks of some slices of one scan, from their rising indices and the distance between neighbours."""
    if spacing_mm > REACH_MM:
        return np.arange(len(slices))
    return np.cumsum(np.diff(slices, prepend=slices[:1]) > 1)


def between_neighbours(stacks: StackArray) -> BoolArray:
    """Which slices have a neighbour on either side, [n]."""
    same = stacks[1:] == stacks[:-1]
    return np.append(same, False) & np.insert(same, 0, False)
