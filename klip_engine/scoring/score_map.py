"""From KLIP densities to the score map a user sees: block averages, terms and sizes brought to one scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from klip_engine.scoring.klip import block_means
from klip_engine.volume import BoolArray, FloatArray


def block_maps(density: torch.Tensor, blocks: Sequence[int]) -> FloatArray:
    """Mean KLIP density per pixel of each term over each block size, [terms * blocks, n, h, w], from densities
    [n, terms, h, w]; the sizes of the first term come first."""
    return np.stack([block_means(one, block).numpy() for one in density.unbind(1) for block in blocks])


def slice_maxima(score: FloatArray, body: BoolArray) -> FloatArray:
    """Highest score inside the body of every slice, [n]; 0 where a slice shows no body."""
    return np.where(body, score, 0.0).max(axis=(1, 2)).astype(np.float32)


def block_scales(maps: FloatArray, body: BoolArray, quantiles: Sequence[float]) -> tuple[float, ...]:
    """The typical highest value of each map on null slices: a quantile of the slice maxima, one per map.

    maps: [maps, n, h, w] from `block_maps`; body: [n, h, w].
    """
    return tuple(
        float(np.quantile(slice_maxima(one, body), quantile)) or 1.0
        for one, quantile in zip(maps, quantiles, strict=True)
    )


def combine_blocks(maps: FloatArray, scales: Sequence[float]) -> FloatArray:
    """The score map [n, h, w]: each of the maps in units of its scale, the largest counting."""
    return np.max(maps / np.asarray(scales, dtype=np.float32)[:, None, None, None], axis=0)
