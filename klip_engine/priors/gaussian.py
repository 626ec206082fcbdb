"""The Gaussian prior: a mean image and a power spectrum, whose denoiser is the Wiener filter in closed form.

Wiener, "Extrapolation, Interpolation, and Smoothing of Stationary Time Series", 1949. It knows textures and
colours, but no shapes; there is nothing to train. It is the yardstick a learned prior has to beat, and exact where
the score of a Gaussian is to be compared with its formula.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import nn

from klip_engine.errors import UsageError
from klip_engine.priors.base import NetworkDenoiser, PriorMean, image_size

_LEAST_POWER = 1e-7


class Moments(nn.Module):
    """mean [channels, h, w]; log_power [channels, h, w], of the frequencies of `torch.fft.fft2`, per pixel."""

    mean: torch.Tensor
    log_power: torch.Tensor

    def __init__(self, mean: torch.Tensor, power: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("log_power", power.clamp(min=_LEAST_POWER).log())


class SpectralGaussian(NetworkDenoiser):
    """x0 ~ N(mean, C), with C stationary (circulant): its eigenvalues are the power of each frequency, channel by
    channel; white noise of variance s^2 has the power s^2 everywhere.

    mean, power: [channels, height, width]; images have values in [-1, 1].
    """

    family = "gaussian"

    def __init__(
        self, mean: torch.Tensor, power: torch.Tensor, *, sigma_min: float = 0.002, sigma_max: float = 80.0
    ) -> None:
        super().__init__()
        self.network = self.moments = Moments(mean, power)
        self.channels, height, width = mean.shape
        self.image_shape = (height, width)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    @classmethod
    def fitted(cls, images: torch.Tensor) -> Self:
        """From images [n, channels, height, width]; raises UsageError for fewer than two."""
        if len(images) < 2:
            raise UsageError("a Gaussian prior needs at least two images")
        mean = images.mean(dim=0)
        spectra = torch.fft.fft2(images - mean, norm="ortho").abs().square()
        return cls(mean, spectra.sum(dim=0) / (len(images) - 1))

    @property
    def data_variance(self) -> float:  # type: ignore[override]
        """Variance of a pixel around its mean, over all channels."""
        return float(self.moments.log_power.exp().mean())

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> PriorMean:
        """E[x0 | x_t = x] = m + P / (P + sigma^2) (x - m) in Fourier space, and its variance, the mean over all
        frequencies of P sigma^2 / (P + sigma^2); x [batch, channels, h, w], sigma [batch]."""
        power, noise = self.moments.log_power.exp().to(x.dtype), sigma.square().view(-1, 1, 1, 1)
        gain = power / (power + noise)
        deviation = torch.fft.ifft2(gain * torch.fft.fft2(x - self.moments.mean)).real
        variance = (gain * noise).mean(dim=(-2, -1), keepdim=True).expand_as(x)
        return PriorMean(self.moments.mean + deviation, variance.log())

    def config(self) -> dict[str, Any]:
        """Sizes and noise levels as a bundle holds them."""
        return {
            "gaussian": {
                "channels": self.channels,
                "image_shape": list(self.image_shape),
                "sigma_min": self.sigma_min,
                "sigma_max": self.sigma_max,
            }
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SpectralGaussian:
        """The prior `config` describes, without numbers until its moments are loaded."""
        sizes = dict(config["gaussian"])
        shape = (int(sizes.pop("channels")), *image_size(sizes.pop("image_shape")))
        with torch.device("meta"):
            return cls(torch.zeros(shape), torch.ones(shape), **sizes)
