"""The identity: the image itself is measured, for denoising and for tests."""

from __future__ import annotations

from typing import Self

import torch


class Identity:
    """A = 1 on images [batch, 1, height, width]."""

    def __init__(self, image_shape: tuple[int, int]) -> None:
        self.image_shape = (int(image_shape[0]), int(image_shape[1]))
        self.measurement_shape: tuple[int, ...] = (1, *self.image_shape)

    @classmethod
    def for_grid(cls, image_shape: tuple[int, int], spacing_mm: float) -> Self:
        """The identity of a grid; the spacing does not matter to it."""
        return cls(image_shape)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The image, [batch, 1, height, width]."""
        return image

    def adjoint(self, measurement: torch.Tensor) -> torch.Tensor:
        """The measurement, [batch, 1, height, width]."""
        return measurement

    def pseudo_inverse(self, measurement: torch.Tensor) -> torch.Tensor:
        """The measurement, [batch, 1, height, width]."""
        return measurement
