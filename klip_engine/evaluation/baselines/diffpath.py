"""DiffPath: statistics of the score and of its rate of change along the path from image to noise.

Heng, Thiery and Soh, "Out-of-Distribution Detection with a Single Unconditional Diffusion Model", NeurIPS 2024,
section 4: the six-dimensional statistic, DDIM integration in 10 steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from klip_engine.errors import UsageError
from klip_engine.evaluation.baselines.base import Evidence, Scores
from klip_engine.priors import Denoiser

_COSINE_OFFSET = 0.008
_RIDGE = 1e-6
"""Added to the diagonal of the correlation matrix, as the published code's mixture does."""
_BATCH = 8


@dataclass(frozen=True)
class DiffPath:
    """-log density of a slice's six statistics under one Gaussian fitted to healthy slices.

    The published density is a mixture of 50 or 100 Gaussians fitted to a whole training set; one is what some
    dozens of slices can support. The map is an extension of ours: the statistics of the neighbourhood of each
    pixel, `neighbourhood` pixels wide, under a Gaussian fitted to the body's pixels of the same slices.
    """

    steps: int = 10
    neighbourhood: int = 5
    of_slices: Gaussian | None = None
    of_pixels: Gaussian | None = None

    name = "DiffPath"
    source = "Heng et al., NeurIPS 2024, section 4"

    @property
    def evaluations(self) -> int:
        """Network evaluations per slice."""
        return self.steps

    def fitted(self, denoiser: Denoiser, healthy: Evidence, seed: int) -> DiffPath:
        """With the Gaussians of the healthy slices."""
        slices, pixels = [], []
        for batch in healthy.batches(_BATCH):
            statistics = self._statistics(denoiser, batch)
            slices.append(statistics.mean(dim=(2, 3)))
            pixels.append(self._local(statistics).movedim(1, -1)[batch.body])
        return replace(self, of_slices=fit_gaussian(torch.cat(slices)), of_pixels=fit_gaussian(torch.cat(pixels)))

    def score(self, denoiser: Denoiser, evidence: Evidence, seed: int) -> Scores:
        """See `Baseline`; nothing in it is random. Raises UsageError before `fitted`."""
        if self.of_slices is None or self.of_pixels is None:
            raise UsageError("DiffPath scores slices only after it was fitted to healthy ones")
        statistics = self._statistics(denoiser, evidence)
        return Scores(
            self.of_pixels.negative_log_density(self._local(statistics).movedim(1, -1)),
            self.of_slices.negative_log_density(statistics.mean(dim=(2, 3))),
        )

    def _statistics(self, denoiser: Denoiser, evidence: Evidence) -> torch.Tensor:
        return path_statistics(denoiser, evidence.reconstruction, cosine_levels(self.steps))

    def _local(self, statistics: torch.Tensor) -> torch.Tensor:
        width = self.neighbourhood
        return functional.avg_pool2d(statistics, width, stride=1, padding=width // 2, count_include_pad=False)


def path_statistics(denoiser: Denoiser, images: torch.Tensor, levels: Sequence[float]) -> torch.Tensor:
    """Per pixel, the sums over time of e, e^2, e^3, e', e'^2, e'^3: [n, 6, h, w] from images [n, 1, h, w].

    e = (x_t - E[x0 | x_t]) / sigma is the predicted noise, the score times -sigma, along the deterministic DDIM
    path from the image upwards through `levels` (from low to high); e' its finite difference, with a time that
    goes from 0 to 1 in as many steps as there are levels. Summed over the pixels, they are DiffPath's statistics.
    """
    with torch.no_grad():
        x, before = images, None
        sums = torch.zeros(len(images), 6, *images.shape[2:], dtype=images.dtype, device=images.device)
        for sigma, sigma_next in zip(levels, [*levels[1:], levels[-1]], strict=True):
            mean = denoiser.denoise(x, sigma).mean
            noise = (x - mean) / sigma
            sums[:, :3] += _powers(noise)
            if before is not None:
                sums[:, 3:] += _powers((noise - before) * len(levels))
            x, before = mean + sigma_next * noise, noise
    return sums


def cosine_levels(steps: int) -> list[float]:
    """sqrt((1 - abar) / abar) of the cosine schedule at t = 0, 1 / steps, ... (Nichol and Dhariwal 2021, eq. 17).

    The schedule of DiffPath's networks; like theirs, our images lie in [-1, 1].
    """
    times = [(k / steps + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) for k in range(steps)]
    return [math.tan(time * math.pi / 2) for time in times]


def _powers(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, x.square(), x**3], dim=1)


@dataclass(frozen=True)
class Gaussian:
    """A multivariate normal: mean and scale [d] of its features, inverse Cholesky factor [d, d] of what they are
    after both, all double."""

    mean: torch.Tensor
    scale: torch.Tensor
    whitening: torch.Tensor

    def negative_log_density(self, features: torch.Tensor) -> torch.Tensor:
        """-log density in nats of features [..., d]: [...], in their precision."""
        white = ((features.double() - self.mean) / self.scale) @ self.whitening.T
        log_determinant = self.scale.log().sum() - self.whitening.diagonal().log().sum()
        constant = log_determinant + 0.5 * len(self.mean) * math.log(2 * math.pi)
        return (0.5 * white.square().sum(dim=-1) + constant).to(features.dtype)


def fit_gaussian(features: torch.Tensor) -> Gaussian:
    """The Gaussian of features [n, d], n > 1: sample mean, sample covariance with a small ridge."""
    features = features.double()
    mean, scale = features.mean(dim=0), features.std(dim=0).clamp(min=1e-12)
    correlation = torch.cov(((features - mean) / scale).T)
    identity = torch.eye(len(mean), dtype=features.dtype, device=features.device)
    factor = torch.linalg.cholesky(correlation + _RIDGE * identity)
    return Gaussian(mean, scale, torch.linalg.solve_triangular(factor, identity, upper=False))
