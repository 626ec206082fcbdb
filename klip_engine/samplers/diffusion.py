"""The reverse diffusion itself: noise levels, one ancestral step, samples of the prior."""

from __future__ import annotations

import math

import torch

from klip_engine.priors.base import Denoiser
from klip_engine.samplers.base import ItemNoise


def noise_levels(steps: int, sigma_max: float, sigma_min: float) -> list[float]:
    """`steps` noise levels from high to low, evenly spaced in log sigma (the KLIP integral's own variable)."""
    ratio = math.log(sigma_min / sigma_max) / max(1, steps - 1)
    return [sigma_max * math.exp(i * ratio) for i in range(steps)]


def karras_levels(steps: int, sigma_max: float, sigma_min: float, rho: float) -> list[float]:
    """`steps` noise levels from high to low, evenly spaced in sigma^(1 / rho) (Karras et al. 2022, equation 5)."""
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(high + step / max(1, steps - 1) * (low - high)) ** rho for step in range(steps)]


def ancestral_step(
    x: torch.Tensor,
    mean: torch.Tensor,
    sigma: float,
    sigma_next: float,
    noise: torch.Tensor,
    stochasticity: float = 1.0,
) -> torch.Tensor:
    """From x_t to x_s, s < t, given E[x0 | x_t]: the bridge x_s ~ q(x_s | x_t, x0 = mean).

    With stochasticity 1 this is q exactly: mean x0 + (s/t)^2 (x_t - x0), variance s^2 (t^2 - s^2) / t^2
    (Ho et al. 2020, equation 7, in variance-exploding form); with 0 it is the deterministic DDIM step
    (Song et al. 2021, equation 12).
    """
    spread = stochasticity * math.sqrt(1.0 - (sigma_next / sigma) ** 2)
    direction = (x - mean) / sigma
    return mean + sigma_next * (math.sqrt(1.0 - spread**2) * direction + spread * noise)


@torch.no_grad()
def sample_prior(
    denoiser: Denoiser,
    noise: ItemNoise,
    steps: int = 60,
) -> torch.Tensor:
    """Images drawn from the prior, [items, channels, height, width], by ancestral sampling.

    From 40 standard deviations of the data on (or the prior's highest level), where the image is all noise:
    higher levels would only spend steps.
    """
    highest = min(denoiser.sigma_max, 40 * math.sqrt(denoiser.data_variance))
    levels = noise_levels(steps, highest, max(denoiser.sigma_min, 0.005))
    x = levels[0] * noise.draw()
    for sigma, sigma_next in zip(levels, [*levels[1:], 0.0], strict=True):
        mean = denoiser.denoise(x, sigma).mean
        if sigma_next == 0:
            return mean
        x = ancestral_step(x, mean, sigma, sigma_next, noise.draw())
    return x
