"""What a measurement is to the rest of the engine: a linear map with an adjoint and a pseudo-inverse."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch


@runtime_checkable
class LinearOperator(Protocol):
    """A linear map A from images to measurements, batched and differentiable.

    Images are float tensors [batch, channels, height, width]; measurements are [batch, *measurement_shape].
    Most operators are of one channel, and `Channelwise` lifts them to several. `forward` and `adjoint` run on
    whatever device their argument is on and carry gradients.
    """

    image_shape: tuple[int, int]
    """(height, width) of the images."""
    measurement_shape: tuple[int, ...]
    """Shape of one measurement, e.g. (views, detector bins)."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """A x: [batch, channels, height, width] -> [batch, *measurement_shape]."""
        ...

    def adjoint(self, measurement: torch.Tensor) -> torch.Tensor:
        """A^T y: [batch, *measurement_shape] -> [batch, channels, height, width]."""
        ...

    def pseudo_inverse(self, measurement: torch.Tensor) -> torch.Tensor:
        """A classical reconstruction (filtered back-projection for CT), same shapes as `adjoint`."""
        ...
