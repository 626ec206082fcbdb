"""DDPM: a variance-preserving model that predicts the noise, as a denoiser in variance-exploding form.

Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020: x_t = sqrt(abar_t) x0 +
sqrt(1 - abar_t) eps, and the network predicts eps from (x_t, t). Divided by sqrt(abar_t) that is the
variance-exploding x0 + sigma eps with sigma = sqrt((1 - abar_t) / abar_t), so that (equation 11)

    E[x0 | x] = x - sigma eps(x / sqrt(1 + sigma^2), t(sigma))
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from klip_engine.priors.architectures import folded
from klip_engine.priors.base import PriorMean, image_size
from klip_engine.priors.described import DescribedDenoiser


def linear_betas(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> list[float]:
    """The noise schedule of Ho et al. 2020, Section 4."""
    betas: list[float] = torch.linspace(first, last, steps, dtype=torch.float64).tolist()
    return betas


class DDPMDenoiser(DescribedDenoiser):
    """Any network eps(x_t, t), t from 0 to len(betas) - 1, trained on images in [-1, 1] with these betas.

    Between two training times t is interpolated linearly in log sigma, and the network is asked at that fraction;
    below the first and above the last time, at these. learned_variance: of networks with twice the channels (Nichol
    and Dhariwal 2021), whose second half, a variance of the reverse step and not of x0, is not used.
    Raises ValueError for betas that are not between 0 and 1.
    """

    family = "ddpm"
    arguments = ("channels", "betas", "space_to_depth", "data_variance", "learned_variance")

    def __init__(
        self,
        network: nn.Module,
        image_shape: tuple[int, int],
        *,
        betas: Sequence[float],
        channels: int = 1,
        space_to_depth: int = 1,
        data_variance: float = 0.25,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        if len(betas) < 2 or not all(0 < beta < 1 for beta in betas):
            raise ValueError("its betas must be at least two numbers between 0 and 1")
        self.network = network
        self.image_shape = image_size(image_shape)
        self.betas = list(betas)
        self.channels = channels
        self.space_to_depth = space_to_depth
        self.data_variance = data_variance
        self.learned_variance = learned_variance
        alpha_bar = torch.cumprod(1 - torch.tensor(self.betas, dtype=torch.float64), dim=0)
        sigmas = ((1 - alpha_bar) / alpha_bar).sqrt()
        self.register_buffer("log_sigmas", sigmas.log(), persistent=False)
        self.sigma_min, self.sigma_max = float(sigmas[0]), float(sigmas[-1])

    @property
    def sigmas(self) -> torch.Tensor:
        """The noise level of every training time, rising, [len(betas)] float64."""
        return self.get_buffer("log_sigmas").exp()

    def time(self, sigma: torch.Tensor) -> torch.Tensor:
        """t(sigma), fractional between training times; sigma [batch]."""
        table = self.get_buffer("log_sigmas")
        wanted = sigma.to(table).log().clamp(table[0], table[-1])
        above = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
        low, high = table[above - 1], table[above]
        return above - 1 + (wanted - low) / (high - low)

    def noise(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """eps, the noise the network sees in x = x0 + sigma eps [batch, channels, h, w]; sigma [batch]."""
        preserved = x * (1 + sigma**2).rsqrt().view(-1, 1, 1, 1)
        out = folded(self.network, preserved, self.time(sigma).to(x.dtype), self.space_to_depth)
        return out[:, : self.channels] if self.learned_variance else out

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> PriorMean:
        """E[x0 | x_t = x]; x [batch, channels, h, w], sigma [batch]."""
        return PriorMean(x - sigma.view(-1, 1, 1, 1) * self.noise(x, sigma))
