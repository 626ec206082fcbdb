"""The Gaussian prior against the dense Gaussian it stands for."""

from __future__ import annotations

import pytest
import torch

from klip_engine.errors import UsageError
from klip_engine.priors import load_prior, save_bundle
from klip_engine.priors.base import Denoiser
from klip_engine.priors.gaussian import SpectralGaussian

SHAPE = (2, 5, 6)


@pytest.fixture
def prior() -> SpectralGaussian:
    rng = torch.Generator().manual_seed(1)
    noise = torch.randn(SHAPE, generator=rng, dtype=torch.float64)
    power = torch.fft.fft2(noise, norm="ortho").abs().square() + 0.1  # even, as of any real image
    return SpectralGaussian(0.3 * torch.randn(SHAPE, generator=rng, dtype=torch.float64), power)


def _covariance(prior: SpectralGaussian, channel: int) -> torch.Tensor:
    """Dense C of one channel, column by column: C e_i by circular convolution with the autocovariance."""
    autocovariance = torch.fft.ifft2(prior.moments.log_power[channel].exp()).real
    rows = [autocovariance.roll((y, x), (0, 1)).flatten() for y in range(SHAPE[1]) for x in range(SHAPE[2])]
    return torch.stack(rows)


@pytest.mark.parametrize("sigma", [0.01, 0.4, 5.0])
def test_the_denoiser_is_the_posterior_of_a_dense_gaussian(prior, sigma):
    assert isinstance(prior, Denoiser)
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    result = prior.denoise(x, sigma)
    assert result.log_variance is not None
    for channel in range(SHAPE[0]):
        c = _covariance(prior, channel)
        gain = c @ torch.linalg.inv(c + sigma**2 * torch.eye(len(c), dtype=c.dtype))
        mean = prior.moments.mean[channel].flatten()
        expected = mean + (x[:, channel].flatten(1) - mean) @ gain.T
        torch.testing.assert_close(result.mean[:, channel].flatten(1), expected)
        variance = torch.diagonal(c - gain @ c).expand(3, -1)
        torch.testing.assert_close(result.log_variance[:, channel].flatten(1).exp(), variance)


def test_it_is_fitted_to_mean_and_spectrum():
    rng = torch.Generator().manual_seed(3)
    images = 0.5 + 0.2 * torch.randn(400, 1, 8, 8, generator=rng)
    prior = SpectralGaussian.fitted(images)
    torch.testing.assert_close(prior.moments.mean, torch.full((1, 8, 8), 0.5), atol=0.04, rtol=0)
    assert prior.data_variance == pytest.approx(0.04, rel=0.03)
    with pytest.raises(UsageError, match="two images"):
        SpectralGaussian.fitted(images[:1])


def test_it_comes_back_from_a_bundle(tmp_path):
    prior = SpectralGaussian.fitted(torch.rand(5, 3, 12, 16, generator=torch.Generator().manual_seed(4)) - 0.5)
    save_bundle(tmp_path / "g", prior, None, training={"pictures": 5}, model_card="# g\n", description="a Gaussian")
    loaded = load_prior(tmp_path / "g")
    assert (loaded.family, loaded.grid) == ("gaussian", None)
    assert loaded.denoiser.data_variance == pytest.approx(prior.data_variance, rel=0.01)
    x = torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(loaded.denoiser.denoise(x, 0.3).mean, prior.denoise(x, 0.3).mean, atol=2e-3, rtol=0)
