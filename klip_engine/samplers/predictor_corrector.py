"""Predictor-corrector with projection: the measurement enters by moving x_t towards a noised copy of it.

Song, Shen, Xing and Ermon, "Solving Inverse Problems in Medical Imaging with Score-Based Generative Models", ICLR
2022, Algorithm 2: before every predictor and every corrector step x_t is projected onto y_t = y + sigma A n, the
measurement at noise level sigma. There A = P(Lambda) T keeps the rows Lambda of an invertible transform T, and in
T's domain the rows that were measured become lambda y_t + (1 - lambda) T x_t. In image space that is

    x' = x + lambda A^+ (y_t - A x)                                                                (1)

since T^-1 is A^+ on the measured rows. Here A is any linear operator, and (1) is the definition. A^+ is made by a
few conjugate-gradient steps on A^T V^-1 A from x: filtered back-projection from few views is no inverse of A on
its range, and applied two thousand times its gains above 1 would grow, while conjugate gradients never raise the
residual. Their early end also leaves alone what the measurement hardly fixes. The predictor is reverse diffusion,
the corrector Langevin (Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations",
ICLR 2021, Algorithms 2 and 4).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from klip_engine.errors import UsageError
from klip_engine.priors.base import Denoiser
from klip_engine.samplers.base import ItemNoise, Measurement, Step
from klip_engine.samplers.dds import proximal_data_step
from klip_engine.samplers.diffusion import noise_levels


@dataclass(frozen=True)
class PredictorCorrector:
    """Song's sampler over noise levels evenly spaced in log sigma, two network evaluations at each.

    snr: of the corrector, whose step size it sets for each image by itself (the published code: for the mean of a
    batch); coefficient: lambda of the projection; iterations: of conjugate gradients; keep: every how many steps
    the update is kept, as (x' - x) / g with the x' of the predictor and the continuous SDE's
    g = sigma sqrt(2 log(sigma_max / sigma_min)). Raises UsageError for options out of range.

    The predictor's projection stands for the likelihood score (x' - x) / d(sigma^2), d(sigma^2) what its step
    covers, and the prior's mean is that of x'. Such a pull is mostly the fresh noise of y_t, as it is in the
    published updates. The last step is the published end: the prior's mean, projected fully onto y itself.

    Known bias: the projection takes y for noiseless, so its noise stays in the sample, and the projected x_t are no
    draws of p(x_t | y): no posterior is sampled (Feng et al., "Score-Based Diffusion Models as Principled Priors
    for Inverse Imaging", ICCV 2023, compare it with true posteriors).
    """

    steps: int = 1000
    sigma_max: float = 128.0
    sigma_min: float = 0.01
    snr: float = 0.246
    coefficient: float = 0.841
    iterations: int = 6
    keep: int = 10

    def __post_init__(self) -> None:
        if not (0 < self.coefficient <= 1 and self.snr >= 0 and self.iterations >= 1 and self.keep >= 1):
            raise UsageError(
                "the sampler 'pc' needs 0 < coefficient <= 1, snr from 0 on, iterations and keep from 1 on"
            )

    @property
    def levels(self) -> list[float]:
        """The noise levels, from high to low."""
        return noise_levels(self.steps, self.sigma_max, self.sigma_min)

    @property
    def evaluations(self) -> int:
        """Network evaluations per sample."""
        return 2 * self.steps

    def __call__(self, denoiser: Denoiser, measurement: Measurement, noise: ItemNoise) -> Iterator[Step]:
        """Yield one step per noise level; see `Sampler`."""
        levels = self.levels
        measurement = measurement.double()
        rate = math.sqrt(2 * math.log(levels[0] / levels[-1]))
        x = levels[0] * noise.draw()
        for number, (sigma, sigma_next) in enumerate(zip(levels, [*levels[1:], 0.0], strict=True)):
            x = self._projected(x, measurement, sigma, noise.draw())
            x = self._corrected(denoiser, x, sigma, noise.draw())
            projected = self._projected(x, measurement, sigma, noise.draw())
            update = projected - x
            prior = denoiser.denoise(projected, sigma)
            kept = (update / (sigma * rate), sigma * rate) if number % self.keep == 0 else (None, None)
            if sigma_next == 0:
                sample = _onto(measurement, prior.mean, measurement.data, int(self.iterations))
                yield Step(sigma, prior.mean, sample, prior.log_variance, *kept)
                return
            covered = sigma**2 - sigma_next**2
            yield Step(sigma, prior.mean, prior.mean + sigma**2 / covered * update, prior.log_variance, *kept)
            score = (prior.mean - projected) / sigma**2
            x = projected + covered * score + math.sqrt(covered) * noise.draw()

    def _projected(
        self, x: torch.Tensor, measurement: Measurement, sigma: float, noise: torch.Tensor
    ) -> torch.Tensor:
        """x' of equation (1)."""
        noised = measurement.data + sigma * measurement.operator.forward(noise.double())
        return x + self.coefficient * (_onto(measurement, x, noised, int(self.iterations)) - x)

    def _corrected(self, denoiser: Denoiser, x: torch.Tensor, sigma: float, z: torch.Tensor) -> torch.Tensor:
        """One Langevin step x + epsilon s + sqrt(2 epsilon) z, with epsilon = 2 (snr |z| / |s|)^2."""
        score = (denoiser.denoise(x, sigma).mean - x) / sigma**2
        size = 2 * (self.snr * _norm(z) / _norm(score)).square()
        return x + size * score + (2 * size).sqrt() * z


def _onto(measurement: Measurement, x: torch.Tensor, data: torch.Tensor, iterations: int) -> torch.Tensor:
    """x + A^+ (data - A x), the image nearest to x that has these data."""
    back_projection = measurement.operator.adjoint(data / measurement.variance)
    return proximal_data_step(measurement, back_projection, x.double(), 0.0, iterations).to(x.dtype)


def _norm(images: torch.Tensor) -> torch.Tensor:
    """Euclidean norms of the items of a batch, [batch, 1, 1, 1]."""
    return torch.linalg.vector_norm(images, dim=(1, 2, 3), keepdim=True)
