"""DPS: diffusion posterior sampling, one ancestral step and one gradient through the denoiser per noise level.

Chung, Kim, Mccann, Klasky and Ye, "Diffusion Posterior Sampling for General Noisy Inverse Problems", ICLR 2023,
Algorithm 1, here over variance-exploding noise levels. The paper's x is variance preserving, x_VE sqrt(abar) with
abar = 1 / (1 + sigma^2), and its update is -zeta grad_x |y - A D|; in x_VE that is

    update = -zeta sqrt((1 + sigma^2)(1 + sigma_next^2)) grad |y - A D(x_t)|

The step covers d(sigma^2) = sigma^2 - sigma_next^2 of the reverse diffusion, so update = d(sigma^2) l with l the
likelihood score it stands for, and E[x0 | x_t, y] = D + sigma^2 l.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from klip_engine.errors import UsageError
from klip_engine.priors.base import Denoiser
from klip_engine.samplers.base import ItemNoise, Measurement, Step
from klip_engine.samplers.diffusion import ancestral_step, noise_levels
from klip_engine.samplers.guidance import ResidualGuidance


@dataclass(frozen=True)
class DPS:
    """DPS over noise levels evenly spaced in log sigma.

    zeta: the step size zeta' of the paper (its Table: 0.3 to 1), for an operator scaled to norm 1. The kept update
    is that of the paper's x over sqrt(beta), beta = 1 - abar / abar_next, as for `DDPM`.

    Known bias: DPS does not sample the posterior, even for a Gaussian prior. It takes p(x0 | x_t) for a point, its
    mean, where the covariance belongs into the likelihood (Boys et al., "Tweedie Moment Projected Diffusions for
    Inverse Problems", 2023, and Pi-GDM), and its step size knows no noise level of y: the mean goes to y, the
    variance to far below the posterior's. Raises UsageError for a negative zeta.
    """

    steps: int = 1000
    sigma_max: float = 100.0
    sigma_min: float = 0.01
    zeta: float = 1.0

    def __post_init__(self) -> None:
        if not self.zeta >= 0:
            raise UsageError(f"zeta is {self.zeta}; a step size starts at 0")

    @property
    def levels(self) -> list[float]:
        """The noise levels, from high to low."""
        return noise_levels(self.steps, self.sigma_max, self.sigma_min)

    @property
    def evaluations(self) -> int:
        """Network evaluations per sample."""
        return self.steps

    def __call__(self, denoiser: Denoiser, measurement: Measurement, noise: ItemNoise) -> Iterator[Step]:
        """Yield one step per noise level; see `Sampler`."""
        return guided_diffusion(self.levels, self.zeta, denoiser, measurement, noise)


def guided_diffusion(
    levels: Sequence[float], zeta: float, denoiser: Denoiser, measurement: Measurement, noise: ItemNoise
) -> Iterator[Step]:
    """Algorithm 1 of DPS from levels[0], where x_t is taken for pure noise, down to no noise."""
    guidance = ResidualGuidance(measurement)
    x = levels[0] * noise.draw()
    for sigma, sigma_next in zip(levels, [*levels[1:], 0.0], strict=True):
        prior, gradient = guidance(denoiser, x, sigma)
        to_preserving = 1 / math.sqrt(1 + sigma_next**2)
        update = -zeta * math.sqrt(1 + sigma**2) * gradient  # of the variance-preserving x at the next level
        likelihood_score = update / to_preserving / (sigma**2 - sigma_next**2)
        posterior_mean = prior.mean + sigma**2 * likelihood_score
        root_beta = math.sqrt((sigma**2 - sigma_next**2) / (1 + sigma**2))  # beta = 1 - abar / abar_next
        yield Step(sigma, prior.mean, posterior_mean, prior.log_variance, update / root_beta, root_beta)
        if sigma_next > 0:
            x = ancestral_step(x, posterior_mean, sigma, sigma_next, noise.draw())
