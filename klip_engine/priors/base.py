"""What a prior is to the rest of the engine: a denoiser, E[x0 | x_t], with an optional variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import nn


@dataclass(frozen=True)
class PriorMean:
    """E[x0 | x_t] under the prior and, where the model predicts it, log Var[x0 | x_t] per pixel.

    Both [batch, channels, height, width]; the variance is in the square of the image's unit.
    """

    mean: torch.Tensor
    log_variance: torch.Tensor | None = None


@runtime_checkable
class Denoiser(Protocol):
    """A diffusion prior in variance-exploding form: x_t = x0 + sigma n, n standard normal.

    Images of CT are x = HU / 1000 clipped to [-1, 1] in one channel, photographs have values in [-1, 1] and one or
    three channels; sigma is in the same unit. `denoise` carries gradients where its argument does.
    """

    channels: int

    image_shape: tuple[int, int]
    """(height, width) the prior was trained on."""
    sigma_min: float
    sigma_max: float
    """Range of noise levels the prior was trained on."""
    data_variance: float
    """Variance of the training images around their mean, v in r_t^2 = sigma^2 v / (sigma^2 + v)."""

    def denoise(self, x: torch.Tensor, sigma: float) -> PriorMean:
        """E[x0 | x_t = x] for a batch [batch, channels, height, width] at one noise level."""
        ...


@runtime_checkable
class PatchTiled(Denoiser, Protocol):
    """A whole-image denoiser put together from patches on a regular grid, as in PaDIS (Hu et al. 2024).

    Its own `denoise` uses the grid at offset (0, 0). Averaged over offsets, no pixel lies at a seam.
    """

    patch: int
    """Side of the square patches in pixels, the distance from one to the next."""

    def at_offset(self, offset: tuple[int, int]) -> Denoiser:
        """The same prior with its grid moved by (rows, columns), from 0 on.

        Offsets repeat after a period that is the prior's own: a grid that covers the image with the fewest patches
        can move by less than a patch.
        """
        ...


MOST_PIXELS_A_SIDE = 4096


def image_size(shape: Any) -> tuple[int, int]:
    """(height, width) as a file states it; raises ValueError for what is no size of an image."""
    sides = tuple(shape) if isinstance(shape, list | tuple) else ()
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= MOST_PIXELS_A_SIDE for side in sides):
        raise ValueError(f"its images are {str(shape)[:80]}, not two sides of 1 to {MOST_PIXELS_A_SIDE} pixels")
    return sides[0], sides[1]


class NetworkDenoiser(nn.Module):
    """A `Denoiser` with weights, all of them in `network`: what the families of `priors.families` share."""

    family: ClassVar[str]
    channels: int
    image_shape: tuple[int, int]
    sigma_min: float
    sigma_max: float
    data_variance: float
    network: nn.Module

    def config(self) -> dict[str, Any]:
        """Plain data from which the family builds this denoiser again, without its weights."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> PriorMean:
        """E[x0 | x_t = x]; x [batch, channels, h, w], sigma [batch], one noise level for each image."""
        raise NotImplementedError

    def denoise(self, x: torch.Tensor, sigma: float) -> PriorMean:
        """The `Denoiser` protocol: one noise level for the whole batch; carries gradients when x does."""
        result: PriorMean = self(x, torch.full((x.shape[0],), float(sigma), dtype=x.dtype, device=x.device))
        return result
