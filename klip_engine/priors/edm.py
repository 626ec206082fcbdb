"""The default prior: a MONAI diffusion U-Net under EDM preconditioning that also predicts its own variance.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022 (EDM), Table 1
and equation 7; the per-pixel log variance is the second half of the output channels, trained by Gaussian
likelihood.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from klip_engine.priors.architectures import folded
from klip_engine.priors.base import PriorMean, image_size
from klip_engine.priors.described import DescribedDenoiser

_LOG_VARIANCE_RANGE = (-14.0, 4.0)


class EDMDenoiser(DescribedDenoiser):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), with F a network on a space-to-depth grid.

    The network gets the scaled image and two position channels (row and column in [-1, 1]), folded `space_to_depth`
    times, and 25 ln sigma as its time; it returns the residual and, where it has that many channels, the log of its
    variance, folded the same way.
    """

    family = "edm"
    section = "preconditioning"
    arguments: ClassVar[tuple[str, ...]] = (
        "space_to_depth",
        "data_mean",
        "sigma_data",
        "sigma_min",
        "sigma_max",
        "channels",
    )

    def __init__(
        self,
        network: nn.Module,
        image_shape: tuple[int, int],
        *,
        channels: int = 1,
        space_to_depth: int = 2,
        data_mean: float = -0.6,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.image_shape = image_size(image_shape)
        self.channels = channels
        self.space_to_depth = space_to_depth
        self.data_mean = data_mean
        self.sigma_data = sigma_data
        self.data_variance = sigma_data**2
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        rows = torch.linspace(-1.0, 1.0, image_shape[0])
        columns = torch.linspace(-1.0, 1.0, image_shape[1])
        position = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]
        self.register_buffer("position", position, persistent=False)

    def residual(
        self, x: torch.Tensor, sigma: torch.Tensor, position: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """F and log variance of F's error, both [batch, channels, h, w], for sigma [batch].

        position [batch, 2, h, w] is by default that of the whole image. The training target is
        (x0 - mean - c_skip (x - mean)) / c_out, which has unit variance at every noise level.
        """
        c_in = (sigma**2 + self.sigma_data**2).rsqrt().view(-1, 1, 1, 1)
        where = (self.get_buffer("position") if position is None else position).expand(x.shape[0], -1, -1, -1)
        inputs = torch.cat([c_in * (x - self.data_mean), where], dim=1)
        out = folded(self.network, inputs, 25.0 * sigma.log(), self.space_to_depth).float()
        f, log_variance = out[:, : self.channels], out[:, self.channels :]
        return f, log_variance.clamp(*_LOG_VARIANCE_RANGE) if log_variance.shape[1] else None

    def scales(self, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """c_skip and c_out of EDM Table 1, each [batch, 1, 1, 1]."""
        total = (sigma**2 + self.sigma_data**2).view(-1, 1, 1, 1)
        return self.sigma_data**2 / total, sigma.view(-1, 1, 1, 1) * self.sigma_data * total.rsqrt()

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, position: torch.Tensor | None = None) -> PriorMean:
        """E[x0 | x_t = x] and log Var[x0 | x_t = x]; x [batch, channels, h, w], sigma [batch]."""
        c_skip, c_out = self.scales(sigma)
        f, log_variance = self.residual(x, sigma, position)
        mean = self.data_mean + c_skip * (x - self.data_mean) + c_out * f
        return PriorMean(mean, None if log_variance is None else log_variance + 2.0 * c_out.log())

    def config(self) -> dict[str, Any]:
        """See `DescribedDenoiser`; one channel is not named, as in older bundles."""
        config = super().config()
        if self.channels == 1:
            del config[self.section]["channels"]
        return config
