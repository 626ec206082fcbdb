"""The scoring recipe of the published study, for faithful reproductions (KLIP, arXiv 2605.31596)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from klip_engine.errors import UsageError


def score_map(normalized_updates: npt.ArrayLike, block: int, window: tuple[int, int]) -> npt.NDArray[np.float32]:
    """KLIP of every block over a window of kept steps, without the factor 1/2 (arXiv 2605.31596).

    normalized_updates: [steps, samples, channels, height, width], numpy or a CPU tensor: the update by the
    measurement over the diffusion coefficient, step by step. block: side in pixels of the square, adjacent
    blocks. window: kept steps [first, last). Returns the sum of squares over block and channels, mean over
    window and samples: [height / block, width / block] float32.

    Raises UsageError when the block does not divide the image or the window leaves the steps.
    """
    updates = np.asarray(normalized_updates)
    if updates.ndim != 5:
        raise UsageError(f"Updates are [steps, samples, channels, height, width], not {updates.shape}.")
    steps, samples, _, height, width = updates.shape
    first, last = window
    if not 0 <= first < last <= steps:
        raise UsageError(f"The window [{first}, {last}) does not lie within the {steps} steps.")
    if block < 1 or height % block or width % block:
        raise UsageError(f"Blocks of {block} pixels do not divide an image of {height} x {width}.")
    energy = np.zeros((height, width))
    for update in updates[first:last]:  # step by step: a window of full-size images need not be copied to float64
        energy += np.square(update, dtype=np.float64).sum(axis=(0, 1))
    energy /= samples * (last - first)
    blocks = energy.reshape(height // block, block, width // block, block).sum(axis=(1, 3))
    return blocks.astype(np.float32)
