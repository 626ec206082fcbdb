"""The scoring recipe of the published study, bit for bit (KLIP, arXiv 2605.31596).

    map(B) = mean over window and samples of  sum over channels and block of  u^2

with u the normalised update of a kept step: what the measurement moved x_t by, over g(t). The factor 1/2 of the
KLIP integral is left out. Arithmetic is float32 in the published code's order: the maps of a whole array, and those
of the running form wherever a map has more than one block, have the same bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from klip_engine.errors import UsageError
from klip_engine.samplers.base import Step

Float32 = npt.NDArray[np.float32]


def score_map(normalized_updates: npt.ArrayLike, block: int, window: tuple[int, int]) -> Float32:
    """KLIP of every block over a window of kept steps, without the factor 1/2 (arXiv 2605.31596).

    normalized_updates: [steps, samples, channels, height, width], numpy or a CPU tensor, in kept order; anything
    but float32 is converted to it first. block: side in pixels of the square, adjacent blocks. window: kept steps
    [first, last). Returns [height / block, width / block] float32.

    Raises UsageError when the block does not divide the image or the window leaves the steps.
    """
    updates = np.asarray(normalized_updates)
    if updates.ndim != 5:
        raise UsageError(f"Updates are [steps, samples, channels, height, width], not {updates.shape}.")
    check_window(window, len(updates))
    first, last = window
    energy = np.stack([block_energy(update, block) for update in updates[first:last]])
    return np.asarray(energy.mean(axis=(0, 1)))


class RunningScore:
    """The same maps from updates as they come: memory is that of the maps, whatever the number of steps.

    block, window: as for `score_map`; slices, samples: of every update, [slices * samples, channels, height,
    width], slice by slice. Steps whose `update` is None are not kept and do not count.
    """

    def __init__(self, block: int, window: tuple[int, int], slices: int = 1, samples: int = 1) -> None:
        self._block, self._window = block, window
        self._slices, self._samples = slices, samples
        self._kept = 0
        self._sums: Float32 | None = None

    def add_step(self, step: Step) -> None:
        """Take a sampler's step, if it keeps an update."""
        if step.update is not None:
            self.add(step.update.detach().cpu().numpy())

    def add(self, update: npt.ArrayLike) -> None:
        """Take the next kept update; raises UsageError when it has another number of items or the block does not
        divide it."""
        shape, items = np.shape(update), self._slices * self._samples
        if len(shape) != 4 or shape[0] != items:
            raise UsageError(f"Updates are [{items} items, channels, height, width], not {shape}.")
        first, last = self._window
        if first <= self._kept < last:
            energy = block_energy(update, self._block)
            grouped = energy.reshape(self._slices, self._samples, *energy.shape[1:])
            if self._sums is None:
                self._sums = np.zeros((self._slices, *energy.shape[1:]), dtype=np.float32)
            for sample in range(self._samples):  # one after the other: the published code's order of summation
                self._sums += grouped[:, sample]
        self._kept += 1

    def maps(self) -> Float32:
        """Score maps [slices, height / block, width / block]; raises UsageError while the window is not full."""
        check_window(self._window, self._kept)
        assert self._sums is not None
        first, last = self._window
        return self._sums / np.float32(self._samples * (last - first))


def block_energy(update: npt.ArrayLike, block: int) -> Float32:
    """Sum of squares over channels and block x block pixels: [n, channels, h, w] to [n, h / block, w / block].

    Raises UsageError when the block does not divide the image.
    """
    values = np.asarray(update, dtype=np.float32)
    items, channels, height, width = values.shape
    if block < 1 or height % block or width % block:
        raise UsageError(f"Blocks of {block} pixels do not divide an image of {height} x {width}.")
    tiles = np.square(values).reshape(items, channels, height // block, block, width // block, block)
    return np.asarray(tiles.sum(axis=(1, 3, 5)))


def check_window(window: tuple[int, int], steps: int) -> None:
    """Raise UsageError unless [first, last) is a window of that many kept steps."""
    first, last = window
    if not 0 <= first < last <= steps:
        raise UsageError(f"The window [{first}, {last}) does not lie within the {steps} steps.")
