"""EDM preconditioning against its own definition (Karras et al. 2022, Table 1)."""

from __future__ import annotations

import pytest
import torch

from klip_engine.priors.base import Denoiser
from klip_engine.priors.edm import EDMDenoiser
from klip_engine.priors.network import NetworkConfig, build_denoiser


class Silent(torch.nn.Module):
    """A network that knows nothing: residual 0, log variance 0."""

    def forward(self, x, timesteps):
        return x.new_zeros(x.shape[0], 2 * x.shape[1] // 3, *x.shape[2:])


def test_without_knowledge_it_is_the_best_linear_denoiser_of_the_data_variance():
    """F = 0 must give the Wiener filter of N(mean, sigma_data^2) and its posterior variance."""
    denoiser = EDMDenoiser(Silent(), (8, 8), data_mean=-0.6, sigma_data=0.5)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for sigma in (0.01, 0.5, 20.0):
        result = denoiser.denoise(x, sigma)
        gain = 0.25 / (0.25 + sigma**2)
        torch.testing.assert_close(result.mean, -0.6 + gain * (x + 0.6))
        torch.testing.assert_close(result.log_variance.exp(), torch.full_like(x, gain * sigma**2))


def test_it_is_a_denoiser_and_differentiable():
    denoiser = build_denoiser(NetworkConfig((16, 16), (1, 1), (False, False), 8, 8), (16, 24))
    assert isinstance(denoiser, Denoiser)
    x = torch.zeros(1, 1, 16, 24, requires_grad=True)
    denoiser.denoise(x, 1.0).mean.sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0


def test_the_position_of_an_image_matters():
    torch.manual_seed(0)
    denoiser = build_denoiser(NetworkConfig((16, 16), (1, 1), (False, False), 8, 8), (16, 24))
    torch.nn.init.normal_(denoiser.network.out[-1].conv.weight, std=0.1)
    x = torch.zeros(1, 1, 16, 24)
    x[..., 4:8, 4:8] = 1
    shifted = torch.roll(x, 8, dims=-1)
    back = torch.roll(denoiser.denoise(shifted, 1.0).mean, -8, dims=-1)
    assert not torch.allclose(back[..., 4:8, 4:8], denoiser.denoise(x, 1.0).mean[..., 4:8, 4:8])


@pytest.mark.parametrize("levels", [(0.01, 0.02)])
def test_noise_levels_of_a_batch_may_differ(levels):
    denoiser = build_denoiser(NetworkConfig((16, 16), (1, 1), (False, False), 8, 8), (16, 24))
    x = torch.randn(2, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    together = denoiser(x, torch.tensor(levels)).mean
    alone = torch.cat([denoiser.denoise(x[i : i + 1], level).mean for i, level in enumerate(levels)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
