"""Guidance by the residual, what DPS, PaDIS and guided DDPM share: the gradient of |y - A D(x_t)| through D.

Chung, Kim, Mccann, Klasky and Ye, "Diffusion Posterior Sampling for General Noisy Inverse Problems" (DPS),
ICLR 2023, equations 15 and 16, Algorithm 1. Its step size zeta_i = zeta / |y - A D(x_t)| turns the gradient of the
squared norm into that of the norm itself (times 2, which the published code leaves out, and so does this one).
"""

from __future__ import annotations

import torch

from klip_engine.operators.base import LinearOperator
from klip_engine.priors.base import Denoiser, PriorMean
from klip_engine.samplers.base import Measurement, seeded_generator

_POWER_ITERATIONS = 20


class ResidualGuidance:
    """grad_x |W^1/2 (y - A D(x))| for a measurement, with A scaled to a given norm.

    W are the measurement's inverse variances over their mean (per item): rays that carry more noise count less,
    and where all carry the same, W is 1 as in the paper. The scaling makes zeta independent of the operator's unit
    of length and number of views: the papers' operators have norms of their own, on which their zeta depends.
    """

    def __init__(self, measurement: Measurement, norm: float = 1.0) -> None:
        self._measurement = measurement
        self._scale = norm / operator_norm(measurement.operator, measurement.data) * _relative_root(measurement)

    def __call__(self, denoiser: Denoiser, x: torch.Tensor, sigma: float) -> tuple[PriorMean, torch.Tensor]:
        """The prior's answer at x and the gradient, both [batch, channels, h, w], at one network evaluation."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            prior = denoiser.denoise(x, sigma)
            residual = self._scale * (self._measurement.data - self._measurement.operator.forward(prior.mean))
            norms = torch.linalg.vector_norm(residual.flatten(start_dim=1), dim=1)
            (gradient,) = torch.autograd.grad(norms.sum(), x)
        log_variance = None if prior.log_variance is None else prior.log_variance.detach()
        return PriorMean(prior.mean.detach(), log_variance), gradient


def operator_norm(operator: LinearOperator, like: torch.Tensor) -> float:
    """The largest singular value of A, by power iteration on A^T A; `like` gives device and precision."""
    x = torch.randn(operator.adjoint(like[:1]).shape, generator=seeded_generator("operator norm")).to(like)
    square = x.new_zeros(())
    for _ in range(_POWER_ITERATIONS):
        x = operator.adjoint(operator.forward(x / torch.linalg.vector_norm(x)))
        square = torch.linalg.vector_norm(x)
    return float(square.sqrt())


def _relative_root(measurement: Measurement) -> torch.Tensor:
    """W^1/2, which multiplies measurements."""
    variance = measurement.variance
    if not isinstance(variance, torch.Tensor) or variance.ndim == 0:
        return measurement.data.new_ones(())
    weight = 1 / variance
    return (weight / weight.mean(dim=tuple(range(1, weight.ndim)), keepdim=True)).sqrt()
