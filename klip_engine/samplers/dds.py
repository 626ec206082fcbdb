"""DDS: decomposed diffusion sampling with a proximal data term, one network evaluation per noise level.

Chung, Lee and Ye, "Decomposed Diffusion Sampler for Accelerating Large-Scale Inverse Problems", ICLR 2024
(conjugate gradients on the data term); Zhu et al., "Denoising Diffusion Models for Plug-and-Play Image
Restoration" (DiffPIR), CVPRW 2023, equation 13; r_t^2 as in Song et al., "Pseudoinverse-Guided Diffusion Models
for Inverse Problems" (Pi-GDM), ICLR 2023, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from klip_engine.priors.base import Denoiser, PriorMean
from klip_engine.samplers.base import ItemNoise, Measurement, Step
from klip_engine.samplers.diffusion import ancestral_step, noise_levels


@dataclass(frozen=True)
class DDS:
    """Posterior sampler of the DDS / Pi-GDM / DiffPIR family.

    sigma_max, sigma_min, steps: noise levels, evenly spaced in log sigma; iterations: of conjugate gradients;
    stochasticity: 1 follows the reverse SDE, 0 the probability-flow ODE; predicted_variance: use the variance
    the prior predicts for each pixel as r_t^2 instead of one number for the whole image.
    """

    steps: int = 20
    sigma_max: float = 3.0
    sigma_min: float = 0.006
    iterations: int = 30
    stochasticity: float = 1.0
    predicted_variance: bool = False

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
        levels = self.levels
        start = measurement.operator.pseudo_inverse(measurement.data)
        x = start + levels[0] * noise.draw()
        measurement = measurement.double()
        back_projection = measurement.back_projection()
        for sigma, sigma_next in zip(levels, [*levels[1:], 0.0], strict=True):
            prior = denoiser.denoise(x, sigma)
            precision = self._precision(prior, sigma, denoiser.data_variance)
            posterior_mean = proximal_data_step(
                measurement, back_projection, prior.mean.double(), precision, self.iterations
            ).to(x.dtype)
            yield Step(sigma, prior.mean, posterior_mean, prior.log_variance)
            if sigma_next > 0:
                x = ancestral_step(x, posterior_mean, sigma, sigma_next, noise.draw(), self.stochasticity)

    def _precision(self, prior: PriorMean, sigma: float, data_variance: float) -> torch.Tensor | float:
        """1 / r_t^2 with r_t^2 = Var[x0 | x_t]."""
        if self.predicted_variance and prior.log_variance is not None:
            return torch.exp(-prior.log_variance.double())
        return (sigma**2 + data_variance) / (sigma**2 * data_variance)


def proximal_data_step(
    measurement: Measurement,
    back_projection: torch.Tensor,
    prior_mean: torch.Tensor,
    precision: torch.Tensor | float,
    iterations: int,
) -> torch.Tensor:
    """argmin_z |A z - y|^2_{V^-1} + precision |z - prior_mean|^2, by conjugate gradients from the prior mean.

    Tensors are double: the Hessian of a CT scan has a condition number of 1e4 and more at high noise levels,
    and single precision would turn the rounding of the network into visible differences. An item stops when its
    residual has fallen by 1e-5, so that its result does not depend on its batch.
    """

    def hessian(z: torch.Tensor) -> torch.Tensor:
        return measurement.normal_equations(z) + precision * z

    z = prior_mean
    residual = back_projection - measurement.normal_equations(z)
    direction = residual
    energy = _inner(residual, residual)
    enough = 1e-10 * energy
    for _ in range(iterations):
        image = hessian(direction)
        curvature = _inner(direction, image)
        running = (energy > enough) & (curvature > 0)
        if not bool(running.any()):
            break
        alpha = torch.where(running, energy / curvature, torch.zeros_like(energy))
        z = z + alpha * direction
        residual = residual - alpha * image
        new_energy = _inner(residual, residual)
        beta = torch.where(running, new_energy / energy, torch.zeros_like(energy))
        direction = residual + beta * direction
        energy = torch.where(running, new_energy, energy)
    return z


def _inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Inner products of the items of two batches, [batch, 1, 1, 1]."""
    return (a * b).sum(dim=(1, 2, 3), keepdim=True)
