"""A score model of whole images in variance-exploding form, as NCSN++ is.

Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021, Appendix C: the
network sees the noisy image as it is and the logarithm of the noise level, and its answer is divided by sigma:

    s(x, sigma) = F(x, log sigma) / sigma,    E[x0 | x] = x + sigma^2 s(x, sigma)   (Tweedie's formula)
"""

from __future__ import annotations

import torch
from torch import nn

from klip_engine.priors.architectures import folded
from klip_engine.priors.base import PriorMean, image_size
from klip_engine.priors.described import DescribedDenoiser


class VEDenoiser(DescribedDenoiser):
    """Any network F(x, log sigma); it gets `time_scale` ln sigma as its time, 25 by default: the sines by which
    networks read it tell whole numbers apart."""

    family = "ve"
    arguments = ("channels", "space_to_depth", "time_scale", "data_variance", "sigma_min", "sigma_max")

    def __init__(
        self,
        network: nn.Module,
        image_shape: tuple[int, int],
        *,
        channels: int = 1,
        space_to_depth: int = 1,
        time_scale: float = 25.0,
        data_variance: float = 0.25,
        sigma_min: float = 0.01,
        sigma_max: float = 128.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.image_shape = image_size(image_shape)
        self.channels = channels
        self.space_to_depth = space_to_depth
        self.time_scale = time_scale
        self.data_variance = data_variance
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    def scaled_score(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """sigma s(x, sigma), minus the noise expected in x [batch, channels, h, w]; sigma [batch]."""
        return folded(self.network, x, self.time_scale * sigma.log(), self.space_to_depth)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> PriorMean:
        """E[x0 | x_t = x]; x [batch, channels, h, w], sigma [batch]."""
        return PriorMean(x + sigma.view(-1, 1, 1, 1) * self.scaled_score(x, sigma))
