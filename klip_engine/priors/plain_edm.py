"""EDM as published: a network of the image alone, without position channels or variance.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022, Table 1.
"""

from __future__ import annotations

import torch

from klip_engine.priors.architectures import folded
from klip_engine.priors.edm import EDMDenoiser


class PlainEDMDenoiser(EDMDenoiser):
    """D(x; sigma) = c_skip x + c_out F(c_in x; 25 ln sigma); a `SongUNet` turns its time into c_noise itself."""

    family = "edm-song"

    def residual(
        self, x: torch.Tensor, sigma: torch.Tensor, position: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """F of images [batch, channels, h, w], sigma [batch]; no variance."""
        c_in = (sigma**2 + self.sigma_data**2).rsqrt().view(-1, 1, 1, 1)
        out = folded(self.network, c_in * (x - self.data_mean), 25.0 * sigma.log(), self.space_to_depth)
        return out.float(), None
