"""Priors in another unit: exactly the prior one would have in ours."""

from __future__ import annotations

import math

import pytest
import torch

from klip_engine.priors.base import NetworkDenoiser, PriorMean
from klip_engine.priors.scaled import ScaledDenoiser, ValueScale, scaled


class Gaussian(NetworkDenoiser):
    """The exact denoiser of u0 ~ N(mean, v), with its exact variance."""

    family = "edm"

    def __init__(self, mean: float, v: float) -> None:
        super().__init__()
        self.mean, self.v = mean, v
        self.channels, self.image_shape = 1, (4, 4)
        self.sigma_min, self.sigma_max, self.data_variance = 0.01, 10.0, v
        self.network = torch.nn.Identity()

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> PriorMean:
        s2 = sigma.view(-1, 1, 1, 1) ** 2
        mean = (self.v * x + s2 * self.mean) / (self.v + s2)
        return PriorMean(mean, (self.v * s2 / (self.v + s2)).log().expand_as(mean))


class GaussianPatches(Gaussian):
    patch = 2

    def at_offset(self, offset: tuple[int, int]) -> Gaussian:
        return Gaussian(self.mean + sum(offset), self.v)


def test_the_ends_of_the_ranges_meet() -> None:
    scale = ValueScale.between((-1.024, 1.176), (0.0, 1.0))  # a window of 2200 HU
    torch.testing.assert_close(scale.to_network(torch.tensor([-1.024, 1.176])), torch.tensor([0.0, 1.0]))
    assert ValueScale.between((-1, 1), (-1, 1)) == ValueScale(0.0, 1.0)
    for wrong in (((1.0, 1.0), (0.0, 1.0)), ((0.0, 1.0), (1.0, 0.0)), ((math.nan, 1.0), (0.0, 1.0))):
        with pytest.raises(ValueError, match=r"must rise"):
            ValueScale.between(*wrong)


@pytest.mark.parametrize("sigma", [0.02, 0.3, 4.0])
def test_a_gaussian_prior_is_the_gaussian_prior_in_our_unit(sigma: float) -> None:
    """u0 ~ N(m, v) is x0 ~ N(offset + m / factor, v / factor^2): posterior mean and variance in closed form."""
    scale = ValueScale.between((-1.0, 1.4), (0.0, 1.0))
    prior = scaled(Gaussian(0.4, 0.05), scale, data_variance=0.2)
    mean, v = scale.offset + 0.4 / scale.factor, 0.05 / scale.factor**2
    x = torch.linspace(-1, 1, 16, dtype=torch.float64).view(1, 1, 4, 4)
    result = prior.denoise(x, sigma)
    torch.testing.assert_close(result.mean, (v * x + sigma**2 * mean) / (v + sigma**2))
    assert result.log_variance is not None
    expected = math.log(v * sigma**2 / (v + sigma**2))
    torch.testing.assert_close(result.log_variance, torch.full_like(x, expected))
    assert prior.sigma_min == pytest.approx(0.01 / scale.factor)
    assert prior.sigma_max == pytest.approx(10 / scale.factor)
    assert prior.data_variance == 0.2


def test_a_patch_prior_stays_one_and_only_that() -> None:
    scale = ValueScale(-1.0, 0.5)
    prior = scaled(GaussianPatches(0.0, 0.05), scale)
    assert prior.patch == 2
    x = torch.zeros(1, 1, 4, 4)
    moved = prior.at_offset((1, 2))  # type: ignore[operator]
    expected = scaled(Gaussian(3.0, 0.05), scale).denoise(x, 0.5)
    torch.testing.assert_close(moved.denoise(x, 0.5).mean, expected.mean)
    assert not hasattr(scaled(Gaussian(0.0, 0.05), scale), "at_offset")


def test_a_scaled_prior_is_not_scaled_again() -> None:
    config = {"family": "scaled", "denoiser": {}, "values": {"offset": 0.0, "factor": 1.0}, "data_variance": 1.0}
    with pytest.raises(ValueError, match=r"inside a scaled prior"):
        ScaledDenoiser.from_config(config)
