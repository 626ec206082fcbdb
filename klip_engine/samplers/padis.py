"""PaDIS: Langevin steps inside each noise level, DPS's gradient, a prior put together from patches.

Hu, Song, Xu, Shen and Fessler, "Learning Image Priors through Patch-based Diffusion Models for Solving Inverse
Problems" (PaDIS), NeurIPS 2024, Algorithm 1. Inside a level, with step size alpha = sigma^2 / 2,

    x <- x - zeta grad |y - A D(x)| + alpha / 2 s(x) + sqrt(alpha) z,    s = (D(x) - x) / sigma^2

where D is assembled from a patch grid at a new random offset at every evaluation. A Langevin step of drift
alpha / 2 (s + l) has the posterior as its target, so each update stands for the likelihood score
l = update / (alpha / 2), and a level's pull on the prior mean is sigma^2 times their mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from klip_engine.errors import UsageError
from klip_engine.priors.base import Denoiser, PatchTiled
from klip_engine.samplers.base import ItemNoise, Measurement, Step, seeded_generator
from klip_engine.samplers.diffusion import karras_levels
from klip_engine.samplers.guidance import ResidualGuidance

_OFFSETS = 2**16
"""Far more than any period of a patch grid, so that all its places come up equally often."""


@dataclass(frozen=True)
class PaDIS:
    """PaDIS with its published settings; a prior that is not `PatchTiled` runs the same without patches.

    rho: spacing of the noise levels (Karras et al. 2022, equation 5); langevin_steps: in each; zeta: for an
    operator of norm `operator_norm`, by default that of the published projector (24 parallel views of 256 x 256
    pixels, image 40 and detector 80 units wide). The kept update of a level is the sum of its updates over
    sqrt(sigma). Raises UsageError for options that are not positive.

    Known bias: that of DPS (`klip_engine.samplers.dps`), and Langevin steps of this size without a
    Metropolis test overshoot: their noise alone settles at a variance of 8/7 sigma^2 (Roberts and Tweedie 1996).
    """

    steps: int = 100
    sigma_max: float = 10.0
    sigma_min: float = 0.003
    rho: float = 7.0
    langevin_steps: int = 10
    zeta: float = 0.3
    operator_norm: float = 12.04

    def __post_init__(self) -> None:
        if not (self.langevin_steps >= 1 and self.rho > 0 and self.zeta >= 0 and self.operator_norm > 0):
            raise UsageError("PaDIS needs at least 1 Langevin step, rho and operator_norm above 0, zeta from 0 on")

    @property
    def levels(self) -> list[float]:
        """The noise levels, from high to low."""
        return karras_levels(self.steps, self.sigma_max, self.sigma_min, self.rho)

    @property
    def evaluations(self) -> int:
        """Network evaluations per sample."""
        return self.steps * int(self.langevin_steps)

    def __call__(self, denoiser: Denoiser, measurement: Measurement, noise: ItemNoise) -> Iterator[Step]:
        """Yield one step per noise level; see `Sampler`."""
        guidance = ResidualGuidance(measurement, self.operator_norm)
        x = self.sigma_max * noise.draw()
        for level, sigma in enumerate(self.levels):
            alpha = sigma**2 / 2
            last_level = level == self.steps - 1
            updates = torch.zeros_like(x)
            for inner in range(int(self.langevin_steps)):
                prior, gradient = guidance(_at_random_offset(denoiser, noise.seed, level, inner), x, sigma)
                update = -self.zeta * gradient
                x = x + update + alpha / 2 * (prior.mean - x) / sigma**2
                if not last_level:
                    x = x + math.sqrt(alpha) * noise.draw()
                updates = updates + update
            pull = sigma**2 * updates / (int(self.langevin_steps) * alpha / 2)
            # The last level adds no noise and x itself is the published result.
            prior_mean = x - pull if last_level else prior.mean
            root = math.sqrt(sigma)
            yield Step(sigma, prior_mean, prior_mean + pull, prior.log_variance, updates / root, root)


def _at_random_offset(denoiser: Denoiser, seed: int, level: int, inner: int) -> Denoiser:
    """The prior on a new patch grid, the same for every item, so that no result depends on its batch."""
    if not isinstance(denoiser, PatchTiled):
        return denoiser
    generator = seeded_generator("patch grid", seed, level, inner)
    rows, columns = torch.randint(_OFFSETS, (2,), generator=generator).tolist()
    return denoiser.at_offset((rows, columns))
