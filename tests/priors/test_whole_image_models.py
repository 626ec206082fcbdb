"""DDPM and variance-exploding score models against the closed form of Gaussian data."""

from __future__ import annotations

import pytest
import torch

from klip_engine.priors.base import Denoiser
from klip_engine.priors.ddpm import DDPMDenoiser, linear_betas
from klip_engine.priors.network import NetworkConfig, build_ddpm, build_ve
from klip_engine.priors.ve import VEDenoiser
from tests.conftest import GaussianPrior

MEAN, VARIANCE = 0.3, 0.2
TINY = NetworkConfig((8, 8), (1, 1), (False, False), 4, 4, space_to_depth=1)


class GaussianNoise(torch.nn.Module):
    """E[eps | x_t] of x0 ~ N(MEAN, VARIANCE), with abar known at whole t and read off linearly between them."""

    def __init__(self, betas: list[float]) -> None:
        super().__init__()
        self.alpha_bar = torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), 0)

    def forward(self, x, timesteps):
        low = timesteps.floor().long().clamp(max=len(self.alpha_bar) - 2)
        part = timesteps - low
        a = ((1 - part) * self.alpha_bar[low] + part * self.alpha_bar[low + 1]).view(-1, 1, 1, 1)
        return (1 - a).sqrt() * (x - a.sqrt() * MEAN) / (a * VARIANCE + 1 - a)


class GaussianScore(torch.nn.Module):
    """sigma s(x, sigma) of the same data; the time is 25 ln sigma."""

    def forward(self, x, timesteps):
        sigma = (timesteps / 25).exp().view(-1, 1, 1, 1)
        return -sigma * (x - MEAN) / (VARIANCE + sigma**2)


def _images(sigma: float, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    spread = (VARIANCE + sigma**2) ** 0.5
    return MEAN + spread * torch.randn(4, channels, 8, 8, generator=generator, dtype=torch.float64)


def _exact(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return GaussianPrior(torch.full((8, 8), MEAN, dtype=torch.float64), VARIANCE).denoise(x, sigma).mean


def _ddpm() -> DDPMDenoiser:
    betas = linear_betas()
    return DDPMDenoiser(GaussianNoise(betas), (8, 8), betas=betas, channels=3)


def test_the_noise_levels_of_ddpm_are_those_of_its_schedule():
    """Ho et al. 2020: beta from 1e-4 to 0.02 in 1000 steps leaves abar_T = 4e-5."""
    prior = _ddpm()
    assert prior.sigma_min == pytest.approx((1e-4 / (1 - 1e-4)) ** 0.5)
    assert 1 / (1 + prior.sigma_max**2) == pytest.approx(4.04e-5, rel=0.01)
    torch.testing.assert_close(prior.time(prior.sigmas), torch.arange(1000, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("t", [0, 1, 10, 300, 700, 999])
def test_ddpm_is_exact_at_training_times(t):
    prior = _ddpm()
    sigma = float(prior.sigmas[t])
    x = _images(sigma)
    torch.testing.assert_close(prior.denoise(x, sigma).mean, _exact(x, sigma), atol=1e-9, rtol=1e-9)


def test_ddpm_between_training_times_is_off_by_at_most_2e_5():
    """Of the posterior mean, root mean square in units of the data, half way between times in log sigma."""
    prior = _ddpm()
    worst = 0.0
    for t in (0, 1, 3, 30, 300, 998):
        sigma = float((prior.sigmas[t] * prior.sigmas[t + 1]).sqrt())
        x = _images(sigma)
        worst = max(worst, float((prior.denoise(x, sigma).mean - _exact(x, sigma)).square().mean().sqrt()))
    assert worst < 2e-5


def test_times_outside_of_the_schedule_are_its_ends():
    prior = _ddpm()
    assert prior.time(torch.tensor([1e-5, 1e5])).tolist() == [0, 999]


def test_a_learned_variance_of_the_reverse_step_is_left_aside():
    class Both(GaussianNoise):
        def forward(self, x, timesteps):
            return torch.cat([super().forward(x, timesteps), torch.full_like(x, 7.0)], dim=1)

    betas = linear_betas()
    prior = DDPMDenoiser(Both(betas), (8, 8), betas=betas, channels=3, learned_variance=True)
    x = _images(1.0)
    torch.testing.assert_close(prior.denoise(x, 1.0).mean, _ddpm().denoise(x, 1.0).mean)


@pytest.mark.parametrize("betas", [[0.1], [0.1, 1.0], [0.0, 0.1], [-0.1, 0.1]])
def test_betas_that_are_none_are_refused(betas):
    with pytest.raises(ValueError, match="between 0 and 1"):
        DDPMDenoiser(torch.nn.Identity(), (8, 8), betas=betas)


@pytest.mark.parametrize("sigma", [0.01, 0.1, 1.0, 30.0, 128.0])
def test_the_score_model_is_exact_at_every_noise_level(sigma):
    prior = VEDenoiser(GaussianScore(), (8, 8), channels=3)
    x = _images(sigma)
    torch.testing.assert_close(prior.denoise(x, sigma).mean, _exact(x, sigma), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("build", [build_ddpm, build_ve])
@pytest.mark.parametrize("channels", [1, 3])
def test_they_are_denoisers_and_differentiable(build, channels):
    prior = build(TINY, (8, 12), channels)
    assert isinstance(prior, Denoiser)
    x = torch.zeros(2, channels, 8, 12, requires_grad=True)
    prior.denoise(x, 0.5).mean.sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
