"""The patch prior: exact assembly at every offset, position channels, padding (Hu et al. 2024, Section 3)."""

from __future__ import annotations

import pytest
import torch

from klip_engine.priors.base import Denoiser, PatchTiled
from klip_engine.priors.network import NetworkConfig, build_patch_denoiser
from klip_engine.priors.patches import PatchEDMDenoiser

TINY = NetworkConfig((8, 8), (1, 1), (False, False), 4, 4, space_to_depth=1)


class Pointwise(torch.nn.Module):
    """Each pixel's answer depends on that pixel, its position and the noise level alone."""

    def forward(self, x, timesteps):
        value, column, row = x.unbind(1)
        time = timesteps.view(-1, 1, 1) / 25
        answer = torch.sin(3 * value) + 0.5 * column - 0.25 * row**2 + 0.1 * time
        return torch.stack([answer, 0.3 * value - time * row], dim=1)


@pytest.mark.parametrize(("shape", "patch"), [((40, 52), 16), ((32, 48), 16), ((10, 21), 24)])
def test_a_pointwise_network_gives_the_same_image_at_every_offset(shape, patch):
    prior = PatchEDMDenoiser(Pointwise(), shape, patch=patch)
    x = torch.randn(3, 1, *shape, generator=torch.Generator().manual_seed(0))
    sigma = 0.7
    x_position, y_position = (
        torch.linspace(-1, 1, n + 2 * pad)[pad : pad + n]
        for n, pad in zip(shape[::-1], prior.padding[::-1], strict=True)
    )
    where = torch.stack(torch.meshgrid(x_position, y_position, indexing="xy"))[None]
    expected = super(PatchEDMDenoiser, prior).forward(x, torch.full((3,), sigma), where)  # the whole image as one
    for offset in [(0, 0), (1, 0), (0, 5), (7, 3), (patch - 1, patch - 1)]:
        result = prior.at_offset(offset).denoise(x, sigma)
        torch.testing.assert_close(result.mean, expected.mean)
        torch.testing.assert_close(result.log_variance, expected.log_variance)


def test_the_published_geometry():
    """Patches of 56 on 256 pixels: 25 of them, 24 pixels of padding (Hu et al. 2024, Section 4)."""
    prior = PatchEDMDenoiser(Pointwise(), (256, 256))
    assert (prior.patch, prior.grid_shape, prior.padding) == (56, (5, 5), (24, 24))
    position = prior.get_buffer("position")
    assert position.shape == (1, 2, 304, 304)
    torch.testing.assert_close(position[0, 0, 7], torch.linspace(-1, 1, 304))  # x first, along the columns
    torch.testing.assert_close(position[0, 1, :, 7], torch.linspace(-1, 1, 304))


class Recorder(torch.nn.Module):
    def forward(self, x, timesteps):
        self.seen = x.detach()
        return torch.zeros_like(x[:, :2])


def test_every_pixel_is_seen_once_where_it_lies_and_the_padding_is_noisy_background():
    shape, sigma = (33, 20), 0.5
    prior = PatchEDMDenoiser(Recorder(), shape, patch=16, data_mean=0.0, background=-1.0)
    c_in = (sigma**2 + prior.sigma_data**2) ** -0.5
    x = 10 + torch.arange(33.0 * 20).view(1, 1, *shape)
    for offset in [(0, 0), (3, 5)]:
        prior.at_offset(offset).denoise(x, sigma)
        patches = prior.network.seen
        values, column = patches[:, 0] / c_in, patches[:, 1]
        inside = values > 5
        assert sorted(values[inside].round().int().tolist()) == list(range(10, 10 + 33 * 20))
        outside = values[~inside]
        assert len(outside) == 48 * 32 - 33 * 20
        assert float(outside.mean()) == pytest.approx(-1.0, abs=0.1)
        assert float(outside.std()) == pytest.approx(sigma, rel=0.1)
        expected = (values[inside] - 10).round() % 20 + prior.padding[1]
        torch.testing.assert_close(column[inside], expected / (20 + 2 * prior.padding[1] - 1) * 2 - 1)


def random_prior(shape: tuple[int, int], patch: int) -> PatchEDMDenoiser:
    torch.manual_seed(0)
    prior = build_patch_denoiser(TINY, shape, patch=patch)
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return prior


def test_the_grid_moves_with_the_offset_and_repeats_after_the_padding():
    prior = random_prior((32, 32), 24)
    x = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        at = {offset: prior.at_offset((offset, 0)).denoise(x, 1.0).mean for offset in (0, 5, 16)}
    assert not torch.allclose(at[0], at[5], atol=1e-3)
    torch.testing.assert_close(at[16], at[0])
    torch.testing.assert_close(prior.denoise(x, 1.0).mean, at[0])


def test_the_result_of_an_image_does_not_depend_on_its_batch():
    prior = random_prior((20, 28), 16)
    x = torch.randn(3, 1, 20, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        together = prior.at_offset((3, 2)).denoise(x, 0.3).mean
        alone = prior.at_offset((3, 2)).denoise(x[2:], 0.3).mean
    torch.testing.assert_close(together[2:], alone, atol=1e-5, rtol=1e-5)


def test_it_is_a_patch_tiled_denoiser_through_which_gradients_flow():
    prior = build_patch_denoiser(TINY, (20, 28), patch=16)
    assert isinstance(prior, PatchTiled)
    grid = prior.at_offset((3, 2))
    assert isinstance(grid, Denoiser)
    x = torch.zeros(2, 1, 20, 28, requires_grad=True)
    grid.denoise(x, 1.0).mean.sum().backward()
    assert x.grad is not None
    assert bool((x.grad != 0).all())


def test_training_patches_carry_their_own_position_and_cover_the_padding():
    prior = PatchEDMDenoiser(Pointwise(), (24, 40), patch=16, background=-1.0)
    position = prior.get_buffer("position")
    rows, columns = prior.padding
    inside = position[..., rows : rows + 24, columns : columns + 40]
    images = inside[:, :1] + 10 * inside[:, 1:]  # each pixel says where it lies
    patches, where = prior.random_patches(images, 8, torch.Generator().manual_seed(0))
    assert patches.shape == (15, 1, 8, 8)
    padding = patches == -1.0
    told = where[:, :1] + 10 * where[:, 1:]
    assert 0 < float(padding.float().mean()) < 1
    torch.testing.assert_close(patches[~padding], told[~padding])
