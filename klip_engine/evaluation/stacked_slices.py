"""Slices of a study together with their neighbours, as one row of slices to be scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from klip_engine.stacks import StackArray
from klip_engine.volume import BoolArray, FloatArray

_NEIGHBOUR_NUMBER = 2_000_000
"""Neighbours count from here: their random numbers are not those of the study's slices."""


def present(around: FloatArray) -> BoolArray:
    """Which of the slices before and after are there, [n, 2], from their HU [n, 2, h, w]."""
    return ~np.isnan(around[:, :, 0, 0])


@dataclass(frozen=True)
class StackedSlices:
    """Each of n slices with its neighbours in a stack of its own, m slices in all.

    hu: [m, h, w]; numbers, of_slice: number and stack of each, [m]; middle: where the n slices themselves stand;
    accompanied: which of these have neighbours, [n].
    """

    hu: FloatArray
    numbers: list[int]
    of_slice: StackArray
    middle: list[int]
    accompanied: BoolArray

    @staticmethod
    def of(hu: FloatArray, around: FloatArray, numbers: Sequence[int]) -> StackedSlices:
        """hu [n, h, w], around [n, 2, h, w]: as in `Study`; numbers: of the n slices in it."""
        there = present(around)
        row: list[tuple[FloatArray, int, int]] = []
        middle = []
        for n, number in enumerate(numbers):
            before, after = ((around[n, side], _NEIGHBOUR_NUMBER + 2 * number + side, n) for side in (0, 1))
            row += [before] * int(there[n, 0])
            middle.append(len(row))
            row += [(hu[n], number, n), *[after] * int(there[n, 1])]
        slices, all_numbers, stacks = zip(*row, strict=True)
        return StackedSlices(
            np.stack(slices), list(all_numbers), np.array(stacks), middle, there[:, 0] | there[:, 1]
        )
