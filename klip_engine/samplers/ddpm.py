"""Guided DDPM: the ancestral sampler of a DDPM with DPS's measurement gradient, for deblurring.

Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020 (linear betas, equation 7); Nichol and
Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021 (fewer, respaced steps); the gradient as
Chung et al., ICLR 2023, Algorithm 1. A DDPM's x_t = sqrt(abar) x0 + sqrt(1 - abar) n is sqrt(abar) times a
variance-exploding x of noise level sigma = sqrt((1 - abar) / abar), so any `Denoiser` serves, and Ho's posterior
q(x_s | x_t, x0) is `ancestral_step` in that x.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from klip_engine.errors import UsageError
from klip_engine.priors.base import Denoiser
from klip_engine.samplers.base import ItemNoise, Measurement, Step
from klip_engine.samplers.dps import guided_diffusion


@dataclass(frozen=True)
class DDPM:
    """Guided DDPM over `steps` of the `train_steps` times a DDPM was trained on, evenly spaced with both ends.

    beta_min, beta_max: ends of the linear schedule; zeta: as for `DPS`, whose bias it shares. The kept update is
    that of the variance-preserving x over sqrt(beta_t), with beta_t = 1 - abar_t / abar_s of the step from t to s.
    Raises UsageError when there are more steps than training times, or for options out of range.
    """

    steps: int = 100
    train_steps: int = 1000
    beta_min: float = 1e-4
    beta_max: float = 0.02
    zeta: float = 1.0

    def __post_init__(self) -> None:
        if not 2 <= self.steps <= self.train_steps:
            raise UsageError(f"a DDPM of {self.train_steps:g} times takes 2 to {self.train_steps:g} steps")
        if not (0 < self.beta_min <= self.beta_max < 1 and self.zeta >= 0):
            raise UsageError("a DDPM needs 0 < beta_min <= beta_max < 1 and zeta from 0 on")

    @property
    def levels(self) -> list[float]:
        """sqrt((1 - abar) / abar) at the times visited, from high to low."""
        last = int(self.train_steps) - 1
        slope = (self.beta_max - self.beta_min) / last
        alphas = (1 - self.beta_min - slope * time for time in range(last + 1))
        cumulative = list(accumulate(alphas, lambda product, alpha: product * alpha))
        times = [round(last * (1 - step / (self.steps - 1))) for step in range(self.steps)]
        return [math.sqrt((1 - cumulative[time]) / cumulative[time]) for time in times]

    @property
    def evaluations(self) -> int:
        """Network evaluations per sample."""
        return self.steps

    def __call__(self, denoiser: Denoiser, measurement: Measurement, noise: ItemNoise) -> Iterator[Step]:
        """Yield one step per time visited; see `Sampler`."""
        return guided_diffusion(self.levels, self.zeta, denoiser, measurement, noise)
