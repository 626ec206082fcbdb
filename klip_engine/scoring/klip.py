"""The KLIP score: how far the measurement pulls the posterior away from the prior, pixel by pixel.

Kheirandish, Hong and Fridovich-Keil, arXiv 2605.31596, in the form every sampler can serve: with
delta = E[x0 | x_t, y] - E[x0 | x_t],

    KLIP(B, [s0, s1]; y) = integral_{s0}^{s1} E |delta_B|^2 / sigma^2  d(log sigma)

which over all noise levels and the whole image is KL(p(x | y) || p(x)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch.nn import functional

from klip_engine.errors import UsageError
from klip_engine.samplers.base import Step

Weighting = Literal[
    "plain",
    "plain-coherent",
    "plain-energy",
    "plain-denser-energy",
    "variance",
    "coherent",
    "geometric-coherent",
]
"""plain: |delta|^2 / sigma^2, the paper's; plain-coherent: the signed pulls, averaged over the samples and over a
Gaussian neighbourhood G before they are squared, (G * delta)^2 / sigma^2; plain-energy: averaged over the samples
before they are squared and over the neighbourhood after, G * delta^2 / sigma^2, the paper's score of a block with
a soft edge: pulls to both sides add up, as at an outline that the prior would draw elsewhere; plain-denser-energy:
the same of pulls to denser values alone, G * max(delta, 0)^2 / sigma^2; variance: |delta|^2 / Var[x0 | x_t], the
pull in standard deviations of what the prior itself expects at that pixel, so that edges do not outshine quiet
tissue; coherent: the averaged pulls against the variance expected there, (G * delta)^2 / (G * Var[x0 | x_t]):
noise and edges pull to both sides and cancel, a lesion pulls to one; geometric-coherent: the geometric mean of the
two coherent ones, (G * delta)^2 / (sigma sqrt(G * Var[x0 | x_t])), between contrast and surprise."""

Window = tuple[float, float]
"""Noise levels (lowest sigma, highest sigma) the integral runs over."""

ALL_LEVELS: Window = (0.0, math.inf)

_ENERGIES = ("plain-energy", "plain-denser-energy")


@dataclass(frozen=True)
class ScoreTerm:
    """One integral to keep: a window of noise levels and a weighting."""

    window: Window = ALL_LEVELS
    weighting: Weighting = "plain"
    coherence_pixels: float = 1.5
    """Standard deviation of the neighbourhood of the coherent weightings and of the energies."""
    unit_quantile: float = 0.9
    """Where several terms are combined, what counts as 1: this quantile of the highest values on null slices. The
    higher, the more a term has to stand out before it counts."""
    over_neighbours: bool = True
    """Whether a score that looks at neighbouring slices averages this term over them."""

    def __post_init__(self) -> None:
        known = get_args(Weighting)
        if self.weighting not in known:
            raise UsageError(f"no weighting is called '{self.weighting}'; there are: {', '.join(known)}")
        if not 0 <= self.window[0] < self.window[1]:
            raise UsageError(f"a window runs from a lower to a higher noise level, not from {self.window}")
        if not self.coherence_pixels > 0 or not 0 <= self.unit_quantile <= 1:
            raise UsageError("a term needs a neighbourhood above 0 pixels and a unit quantile from 0 to 1")
        if not isinstance(self.over_neighbours, bool):
            raise UsageError("over_neighbours is true or false")


class KlipAccumulator:
    """Running KLIP densities of a batch of slices; memory does not grow with steps or samples.

    `levels` are the noise levels that will come, from high to low; every step holds `samples` posterior samples
    of each slice, slice by slice: [slices * samples, channels, h, w]. The densities of the channels are summed.
    """

    def __init__(self, terms: Sequence[ScoreTerm], levels: Sequence[float], slices: int, samples: int) -> None:
        self.terms = tuple(terms)
        self._slices, self._samples = slices, samples
        self._weights = [dict(zip(levels, quadrature(levels, term.window), strict=True)) for term in terms]
        self._sums: torch.Tensor | None = None

    def add(self, step: Step) -> None:
        """Add one noise level to every term."""
        if self._sums is None:
            self._sums = step.prior_mean.new_zeros(self._slices, len(self.terms), *step.prior_mean.shape[-2:])
        pulls = _Pulls(step, self._slices, self._samples)
        for number, term in enumerate(self.terms):
            weight = self._weights[number][step.sigma]
            if weight > 0:
                self._sums[:, number] += weight * pulls.density(term)

    def density(self) -> torch.Tensor:
        """KLIP per pixel, [slices, terms, h, w]; summed over the image it is the KLIP of the slice."""
        if self._sums is None:
            raise RuntimeError("no step was added")
        maps = [
            gaussian_mean(one, term.coherence_pixels) if term.weighting in _ENERGIES else one
            for one, term in zip(self._sums.unbind(1), self.terms, strict=True)
        ]
        return torch.stack(maps, dim=1)


class _Pulls:
    """The pulls of one step; what several terms need of them is computed once."""

    def __init__(self, step: Step, slices: int, samples: int) -> None:
        self._step = step
        self._pull = step.posterior_mean - step.prior_mean
        self._grouped = (slices, samples, *self._pull.shape[-3:])
        self._around: dict[tuple[str, float], torch.Tensor] = {}

    def density(self, term: ScoreTerm) -> torch.Tensor:
        """The integrand of one term, averaged over samples, [slices, h, w]; energies not yet over pixels."""
        sigma = self._step.sigma
        if term.weighting == "plain":
            return self._over_samples(self._pull.square()).sum(dim=1) / sigma**2
        if term.weighting == "plain-coherent":
            return self._mean("pull", term).square().sum(dim=1) / sigma**2
        if term.weighting in _ENERGIES:
            pull = self._over_samples(self._pull)
            counted = pull.clamp(min=0) if term.weighting == "plain-denser-energy" else pull
            return counted.square().sum(dim=1) / sigma**2
        if self._step.log_variance is None:
            raise UsageError(f"the weighting '{term.weighting}' needs a prior that predicts its variance")
        if term.weighting == "variance":
            return self._over_samples(self._pull.square() / self._variance).sum(dim=1)
        expected = self._mean("variance", term)
        if term.weighting == "geometric-coherent":
            expected = sigma * expected.sqrt()
        return (self._mean("pull", term).square() / expected).sum(dim=1)

    def _mean(self, of: Literal["pull", "variance"], term: ScoreTerm) -> torch.Tensor:
        """Over the samples and the term's neighbourhood, [slices, channels, h, w]."""
        key = (of, term.coherence_pixels)
        if key not in self._around:
            values = self._pull if of == "pull" else self._variance
            self._around[key] = gaussian_mean(self._over_samples(values), term.coherence_pixels)
        return self._around[key]

    @cached_property
    def _variance(self) -> torch.Tensor:
        assert self._step.log_variance is not None  # asked before
        return self._step.log_variance.exp()

    def _over_samples(self, values: torch.Tensor) -> torch.Tensor:
        return values.view(self._grouped).mean(dim=1)


def quadrature(levels: Sequence[float], window: Window = ALL_LEVELS) -> list[float]:
    """Weights of an integral over log sigma: exact for a piecewise linear integrand, clipped to the window.

    levels: noise levels from high to low, at least two; the integrand is taken as zero outside them.
    """
    points = [math.log(level) for level in levels]
    low = max(points[-1], math.log(window[0]) if window[0] > 0 else -math.inf)
    high = min(points[0], math.log(window[1]) if window[1] > 0 else -math.inf)
    weights = [0.0] * len(points)
    for i, (right, left) in enumerate(pairwise(points)):
        a, b = max(left, low), min(right, high)
        if b > a:
            middle = ((a + b) / 2 - left) / (right - left)  # mean position in the cell, 0 at `left`
            weights[i] += (b - a) * middle
            weights[i + 1] += (b - a) * (1 - middle)
    return weights


def tile_sums(density: torch.Tensor, block: int) -> torch.Tensor:
    """Sums over the tiles of a fixed partition into block x block pixels, [..., ceil(h / b), ceil(w / b)].

    Tiles at the lower and right border are filled with zeros, so all tiles together hold the whole.
    """
    height, width = density.shape[-2:]
    padded = functional.pad(density, (0, -width % block, 0, -height % block))
    folded = padded.unflatten(-1, (-1, block)).unflatten(-3, (-1, block))
    return folded.sum(dim=(-3, -1))


def block_means(density: torch.Tensor, block: int) -> torch.Tensor:
    """Mean over the block x block pixels around every pixel (block odd), same shape as `density`.

    The sliding form of the block score, for maps; zeros outside the image. Raises ValueError for an even block.
    """
    if block % 2 == 0:
        raise ValueError(f"a sliding block needs an odd size, not {block}")
    flat = density.reshape(-1, 1, *density.shape[-2:])
    return functional.avg_pool2d(flat, block, stride=1, padding=block // 2).reshape(density.shape)


def gaussian_mean(image: torch.Tensor, deviation: float) -> torch.Tensor:
    """Gaussian-weighted mean around every pixel of images [..., h, w]; the border is repeated."""
    radius = max(1, math.ceil(3 * deviation))
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = kernel / kernel.sum()
    flat = image.reshape(-1, 1, *image.shape[-2:])
    padded = functional.pad(flat, (radius, radius, radius, radius), mode="replicate")
    columns = functional.conv2d(padded, kernel.view(1, 1, 1, -1))
    return functional.conv2d(columns, kernel.view(1, 1, -1, 1)).view(image.shape)
