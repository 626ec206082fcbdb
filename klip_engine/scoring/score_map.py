"""From KLIP densities to the score map a user sees: block averages, everything brought to one scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from klip_engine.scoring.klip import ScoreTerm, block_means, gaussian_mean
from klip_engine.stacks import StackArray
from klip_engine.volume import BoolArray, FloatArray

PlaceArray = npt.NDArray[np.uint8]
Scales = tuple[tuple[float, ...], ...]
"""Of each map (term and block size) at each place."""


def block_maps(density: torch.Tensor, blocks: Sequence[int]) -> FloatArray:
    """Mean KLIP density per pixel of each term over each block size, [terms * blocks, n, h, w], from densities
    [n, terms, h, w]; the sizes of the first term come first."""
    return np.stack([block_means(one, block).numpy() for one in density.unbind(1) for block in blocks])


def over_neighbours(values: torch.Tensor, stacks: StackArray) -> torch.Tensor:
    """The weighted mean of every slice [n, ...] and its neighbours, 1, 2, 1.

    At the ends of a stack the one neighbour stands for both. A lesion reaches into the next slice; noise and the
    sampler's chance do not.
    """
    places, same = np.arange(len(stacks)), stacks[1:] == stacks[:-1]
    before, after = places - np.append(False, same), places + np.append(same, False)
    left = np.where(before == places, after, before)
    right = np.where(after == places, before, after)
    return (values[left] + 2 * values + values[right]) / 4


def terms_over_neighbours(density: torch.Tensor, terms: Sequence[ScoreTerm], stacks: StackArray) -> torch.Tensor:
    """Densities [n, terms, h, w], those of terms that ask for it averaged over each slice and its neighbours."""
    averaged = torch.tensor([term.over_neighbours for term in terms]).view(-1, 1, 1)
    return torch.where(averaged, over_neighbours(density, stacks), density)


def slice_maxima(score: FloatArray, body: BoolArray) -> FloatArray:
    """Highest score inside the body of every slice, [n]; 0 where a slice shows no body."""
    return np.where(body, score, 0.0).max(axis=(1, 2)).astype(np.float32)


def local_places(reconstruction_hu: FloatArray, edges_hu: Sequence[float], deviation_pixels: float) -> PlaceArray:
    """In which kind of tissue each pixel lies, uint8 [n, h, w]: how many of the edges the mean HU around it passes.

    The mean is Gaussian, wide enough that a lesion in the lung lies in the lung, not in soft tissue.
    """
    around = gaussian_mean(torch.from_numpy(reconstruction_hu), deviation_pixels).numpy()
    return np.digitize(around, np.sort(edges_hu)).astype(np.uint8)


def block_scales(
    maps: FloatArray, body: BoolArray, quantiles: Sequence[float], places: PlaceArray | None = None
) -> Scales:
    """The typical highest value of each map at each place: a quantile over the null slices that show the place.

    maps: [maps, n, h, w] from `block_maps`; body, places: [n, h, w]; quantiles: one per map.
    """
    places = np.zeros(body.shape, np.uint8) if places is None else places
    return tuple(
        tuple(_scale(one, body, body & (places == place), quantile) for place in range(int(places.max()) + 1))
        for one, quantile in zip(maps, quantiles, strict=True)
    )


def _scale(one: FloatArray, body: BoolArray, there: BoolArray, quantile: float) -> float:
    """Of one map at one place; of the whole body where no null slice shows the place."""
    there = there if there.any() else body
    shown = there.any(axis=(1, 2))
    return float(np.quantile(slice_maxima(one, there)[shown], quantile)) or 1.0 if shown.any() else 1.0


def combine_blocks(maps: FloatArray, scales: Scales, places: PlaceArray | None = None) -> FloatArray:
    """The score map [n, h, w]: each of the maps in units of its scale at each place, the largest counting.

    Places without a scale of their own, never seen in the null, take the last one.
    """
    if places is None:
        places = np.zeros(maps.shape[1:], np.uint8)
    units = np.asarray(scales, dtype=np.float32)
    known = np.minimum(places, units.shape[1] - 1)
    return np.max(maps / units[:, known], axis=0)
