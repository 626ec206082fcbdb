"""What each family of priors is trained on: the noise levels it meets and the loss of one batch.

- edm: Karras et al. 2022 (EDM), equation 8, with log-normal noise levels; where the network predicts its variance,
  the squared error is replaced by the beta-NLL of Seitzer et al., "On the Pitfalls of Heteroscedastic Uncertainty
  Estimation", ICLR 2022, equation 5 (beta = 1/2): quiet tissue counts more than edges, without the mean being given
  up where variance is high.
- patch-edm: the same on random patches, half of the batches on patches of full size, three tenths on half and two
  tenths on quarter sides (Wang et al. 2023, Patch Diffusion, Section 3.2, in the proportions of PaDIS).
- ddpm: the error of the predicted noise (Ho et al. 2020, equation 14), training times drawn evenly.
- ve: denoising score matching weighted by sigma^2 (Song et al. 2021, equation 7), noise levels evenly in log sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from klip_engine.priors.base import NetworkDenoiser
from klip_engine.priors.ddpm import DDPMDenoiser
from klip_engine.priors.edm import EDMDenoiser
from klip_engine.priors.patches import PatchEDMDenoiser
from klip_engine.priors.ve import VEDenoiser

Batch = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class ObjectiveSettings:
    """Log-normal noise levels and beta of `edm` and `patch-edm`; the patch sizes of `patch-edm` are multiples of
    `patch_step` pixels; bfloat16: mixed precision."""

    sigma_log_mean: float = -1.5
    sigma_log_std: float = 1.5
    beta: float = 0.5
    patch_step: int = 8
    bfloat16: bool = False


class Objective(nn.Module):
    """The loss of one family; a module so that DistributedDataParallel can wrap it."""

    def __init__(self, denoiser: Any, settings: ObjectiveSettings) -> None:
        super().__init__()
        self.denoiser, self.settings = denoiser, settings

    def batch(self, clean: torch.Tensor, generator: torch.Generator) -> Batch:
        """What `forward` takes, for clean images [batch, channels, h, w]: they, standard normal noise, noise levels
        [batch]. The generator is on the CPU, whatever the images' device."""
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        return clean, noise, self.noise_levels(len(clean), generator).to(clean.device)

    def noise_levels(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Random noise levels [count]."""
        raise NotImplementedError

    def forward(self, *batch: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch."""
        with torch.autocast(batch[0].device.type, dtype=torch.bfloat16, enabled=self.settings.bfloat16):
            return self.loss(*batch)

    def loss(self, *batch: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch, in the precision that is set."""
        raise NotImplementedError


class EDMObjective(Objective):
    """Denoising under EDM preconditioning, with a predicted variance where the network has one."""

    denoiser: EDMDenoiser

    def noise_levels(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Log-normal, within the prior's range."""
        normal = torch.randn(count, generator=generator)
        sigma = (self.settings.sigma_log_mean + self.settings.sigma_log_std * normal).exp()
        return sigma.clamp(self.denoiser.sigma_min, self.denoiser.sigma_max)

    def loss(self, *batch: torch.Tensor) -> torch.Tensor:
        """batch: clean, noise, sigma and, of patches, their position."""
        clean, noise, sigma, *position = batch
        noisy = clean + sigma.view(-1, 1, 1, 1) * noise
        c_skip, c_out = self.denoiser.scales(sigma)
        mean = self.denoiser.data_mean
        target = (clean - mean - c_skip * (noisy - mean)) / c_out
        f, log_variance = self.denoiser.residual(noisy, sigma, *position)
        if log_variance is None:
            return ((f - target) ** 2).mean()
        nll = 0.5 * ((f - target) ** 2 * torch.exp(-log_variance) + log_variance)
        return (torch.exp(self.settings.beta * log_variance).detach() * nll).mean()


class PatchObjective(EDMObjective):
    """The same on random patches of the padded images, one size per batch, as many as have the images' area."""

    denoiser: PatchEDMDenoiser

    def sizes(self) -> list[int]:
        """Full, half and quarter side, rounded to what the network takes: 56, 32 and 16 for 56 in steps of 8."""
        step = self.settings.patch_step
        return [max(step, step * round(self.denoiser.patch / part / step)) for part in (1, 2, 4)]

    def batch(self, clean: torch.Tensor, generator: torch.Generator) -> Batch:
        """Clean patches, noise, noise levels and positions."""
        which = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), 1, generator=generator)
        patches, position = self.denoiser.random_patches(clean, self.sizes()[int(which)], generator)
        return *super().batch(patches, generator), position


class DDPMObjective(Objective):
    """The error of the predicted noise."""

    denoiser: DDPMDenoiser

    def noise_levels(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Of training times drawn evenly."""
        times = torch.randint(len(self.denoiser.betas), (count,), generator=generator)
        return self.denoiser.sigmas.cpu()[times].float()

    def loss(self, *batch: torch.Tensor) -> torch.Tensor:
        """batch: clean, noise, sigma."""
        clean, noise, sigma = batch
        predicted = self.denoiser.noise(clean + sigma.view(-1, 1, 1, 1) * noise, sigma)
        return ((predicted.float() - noise) ** 2).mean()


class VEObjective(Objective):
    """Denoising score matching."""

    denoiser: VEDenoiser

    def noise_levels(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Evenly in log sigma over the prior's range."""
        low, high = math.log(self.denoiser.sigma_min), math.log(self.denoiser.sigma_max)
        return (low + (high - low) * torch.rand(count, generator=generator)).exp()

    def loss(self, *batch: torch.Tensor) -> torch.Tensor:
        """batch: clean, noise, sigma."""
        clean, noise, sigma = batch
        scaled_score = self.denoiser.scaled_score(clean + sigma.view(-1, 1, 1, 1) * noise, sigma)
        return ((scaled_score.float() + noise) ** 2).mean()


OBJECTIVES: dict[str, type[Objective]] = {
    "edm": EDMObjective,
    "patch-edm": PatchObjective,
    "ddpm": DDPMObjective,
    "ve": VEObjective,
}


def build_objective(denoiser: NetworkDenoiser, settings: ObjectiveSettings) -> Objective:
    """What the denoiser's family is trained on."""
    return OBJECTIVES[denoiser.family](denoiser, settings)
