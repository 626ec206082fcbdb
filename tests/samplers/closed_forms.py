"""Priors and operators whose answers are known in closed form, for the samplers' tests."""

from __future__ import annotations

import torch

from klip_engine.operators import LinearOperator
from klip_engine.priors.base import Denoiser, PriorMean
from tests.conftest import GaussianPrior


class SmoothPrior:
    """The exact denoiser of x0 ~ N(mean, C) with C = variance exp(-distance^2 / (2 length^2)) between pixels."""

    def __init__(self, shape: tuple[int, int], mean: float, variance: float, length: float) -> None:
        rows, columns = torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij")
        place = torch.stack([rows.flatten(), columns.flatten()], dim=1).double()
        covariance = variance * torch.exp(-torch.cdist(place, place).square() / (2 * length**2))
        values, vectors = torch.linalg.eigh(covariance)
        self._values, self._vectors = values.clamp(min=0).float(), vectors.float()
        self._mean, self.data_variance = mean, variance
        self.channels, self.image_shape = 1, shape
        self.sigma_min, self.sigma_max = 1e-4, 1e3

    def denoise(self, x: torch.Tensor, sigma: float) -> PriorMean:
        return PriorMean(self._filtered(x - self._mean, self._values / (self._values + sigma**2)) + self._mean)

    def draw(self, seed: int) -> torch.Tensor:
        noise = torch.randn(1, 1, *self.image_shape, generator=torch.Generator().manual_seed(seed))
        return self._mean + self._filtered(noise, self._values.sqrt())

    def _filtered(self, x: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) @ self._vectors * gains @ self._vectors.T).view(x.shape)


class TiledPrior(GaussianPrior):
    """A Gaussian prior that pretends to be tiled: another offset, another mean. Notes the offsets asked for."""

    patch = 4

    def __init__(self, mean: torch.Tensor, variance: float) -> None:
        super().__init__(mean, variance)
        self.offsets: list[tuple[int, int]] = []

    def at_offset(self, offset: tuple[int, int]) -> Denoiser:
        self.offsets.append(offset)
        return GaussianPrior(self.mean + 0.01 * offset[0] - 0.02 * offset[1], self.data_variance)


class Mask:
    """Measures some pixels and not the others: the mask [h, w] times the image."""

    def __init__(self, mask: torch.Tensor) -> None:
        self.mask = mask
        self.image_shape = (mask.shape[0], mask.shape[1])
        self.measurement_shape: tuple[int, ...] = (1, *self.image_shape)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * self.mask

    adjoint = pseudo_inverse = forward


def dense(operator: LinearOperator) -> torch.Tensor:
    """The matrix of an operator in double precision, [measurements, pixels]."""
    height, width = operator.image_shape
    basis = torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)
    return operator.forward(basis).flatten(1).T
