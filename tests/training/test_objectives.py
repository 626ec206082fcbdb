"""The losses of the families where the answer is known: data of one image leave a perfect network no error."""

from __future__ import annotations

import pytest
import torch

from klip_engine.priors.ddpm import DDPMDenoiser, linear_betas
from klip_engine.priors.edm import EDMDenoiser
from klip_engine.priors.patches import PatchEDMDenoiser
from klip_engine.priors.ve import VEDenoiser
from klip_engine.training.objectives import OBJECTIVES, ObjectiveSettings, PatchObjective, build_objective

SHAPE = (16, 24)
IMAGE = torch.linspace(-1, 1, 16 * 24, dtype=torch.float64).view(1, 1, *SHAPE)
SIGMA = {"sigma_min": 0.01, "sigma_max": 20.0}


class Exact(torch.nn.Module):
    """What each network must answer when the clean image is known to be IMAGE; wrong by `error` on purpose."""

    def __init__(self, family: str, error: float = 0.0) -> None:
        super().__init__()
        self.family, self.error = family, error

    def forward(self, x, timesteps):
        time = timesteps.view(-1, 1, 1, 1)
        if self.family == "ddpm":
            alpha_bar = torch.cumprod(1 - torch.tensor(linear_betas(), dtype=torch.float64), 0)
            a = alpha_bar[timesteps.round().long()].view(-1, 1, 1, 1)
            return (x - a.sqrt() * IMAGE) / (1 - a).sqrt() + self.error
        sigma = (time / 25).exp()
        if self.family == "ve":
            return (IMAGE - x) / sigma + self.error
        total = (sigma**2 + 0.25).sqrt()
        scaled = x[:, :1] * total  # x - mean
        return (IMAGE + 0.6 - 0.25 / total**2 * scaled) / (sigma * 0.5 / total) + self.error


def _denoiser(family: str, error: float):
    network = Exact(family, error)
    if family == "ddpm":
        return DDPMDenoiser(network, SHAPE, betas=linear_betas())
    if family == "ve":
        return VEDenoiser(network, SHAPE, **SIGMA)
    return EDMDenoiser(network, SHAPE, space_to_depth=1, **SIGMA)


@pytest.mark.parametrize("error", [0.0, 0.5])
@pytest.mark.parametrize("family", ["edm", "ddpm", "ve"])
def test_a_perfect_network_has_no_loss_and_another_its_squared_error(family, error):
    objective = build_objective(_denoiser(family, error), ObjectiveSettings())
    generator = torch.Generator().manual_seed(0)
    clean, noise, sigma = objective.batch(IMAGE.expand(8, -1, -1, -1), generator)
    assert sigma.shape == (8,)
    loss = objective(clean, noise.double(), sigma.double())
    assert float(loss) == pytest.approx(error**2, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("family", ["edm", "ddpm", "ve"])
def test_noise_levels_follow_their_distribution(family):
    objective = build_objective(_denoiser(family, 0.0), ObjectiveSettings(-1.5, 1.0))
    drawn = objective.noise_levels(4000, torch.Generator().manual_seed(0)).double().log()
    if family == "edm":  # log-normal
        expected, spread = -1.5, 1.0
    elif family == "ve":  # even in log sigma
        low, high = (torch.tensor(SIGMA[name]).log().item() for name in ("sigma_min", "sigma_max"))
        expected, spread = (low + high) / 2, (high - low) / 12**0.5
    else:  # even over the schedule
        table = objective.denoiser.sigmas.log()
        expected, spread = float(table.mean()), float(table.std())
    assert float(drawn.mean()) == pytest.approx(expected, abs=0.06 * spread)
    assert float(drawn.std()) == pytest.approx(spread, rel=0.06)


def test_the_variance_is_learned_where_the_network_predicts_it():
    """beta-NLL with beta = 0 is the Gaussian's: least where the predicted variance is the squared error."""

    class Guess(Exact):
        variance = 1.0

        def forward(self, x, timesteps):
            f = super().forward(x, timesteps)
            return torch.cat([f, torch.full_like(f, self.variance).log()], dim=1)

    network = Guess("edm", 0.5)
    objective = build_objective(EDMDenoiser(network, SHAPE, space_to_depth=1, **SIGMA), ObjectiveSettings(beta=0.0))
    clean, noise, sigma = objective.batch(IMAGE.expand(4, -1, -1, -1), torch.Generator().manual_seed(0))
    losses = {}
    for network.variance in (0.2, 0.25, 0.3):
        losses[network.variance] = float(objective(clean, noise.double(), sigma.double()))
    assert min(losses, key=losses.__getitem__) == 0.25


def test_patches_come_in_three_sizes_with_their_position_and_the_images_area():
    class Answer(torch.nn.Module):
        def forward(self, x, timesteps):
            return x[:, :2]

    prior = PatchEDMDenoiser(Answer(), (112, 168), patch=56)
    objective = build_objective(prior, ObjectiveSettings(patch_step=8))
    assert isinstance(objective, PatchObjective)
    assert objective.sizes() == [56, 32, 16]
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(2, 1, 112, 168)
    seen = []
    for _ in range(40):
        patches, noise, sigma, position = objective.batch(images, generator)
        size = patches.shape[-1]
        seen.append(size)
        assert len(patches) == 2 * round(112 * 168 / size**2) == len(sigma)
        assert patches.shape == noise.shape == (len(patches), 1, size, size)
        assert position.shape == (len(patches), 2, size, size)
        assert torch.isfinite(objective(patches, noise, sigma, position))
    assert set(seen) == {56, 32, 16}
    assert seen.count(56) > seen.count(16)


def test_every_family_that_can_be_trained_is_one_that_can_be_kept():
    from klip_engine.priors.families import FAMILIES

    assert set(OBJECTIVES) <= set(FAMILIES)
