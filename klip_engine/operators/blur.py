"""Gaussian blur with periodic borders, as a multiplication in Fourier space."""

from __future__ import annotations

from typing import Any, Self

import torch

from klip_engine.errors import UsageError


class GaussianBlur:
    """Circular convolution with a normalised Gaussian: images and measurements [batch, 1, height, width].

    kernel_size: side of the square kernel in pixels, odd, at most the shorter side of the image; sigma: of
    the Gaussian, in pixels. smallest_gain: what `pseudo_inverse` treats as lost. Raises `UsageError` for
    others.
    """

    def __init__(
        self,
        image_shape: tuple[int, int],
        *,
        kernel_size: int = 9,
        sigma: float = 1.5,
        smallest_gain: float = 0.02,
    ) -> None:
        self.image_shape = (int(image_shape[0]), int(image_shape[1]))
        self.measurement_shape: tuple[int, ...] = (1, *self.image_shape)
        if kernel_size < 1 or kernel_size % 2 == 0 or kernel_size > min(self.image_shape):
            raise UsageError(
                f"kernel_size is odd, positive and at most the shorter side of the image; got {kernel_size} "
                f"for an image of {self.image_shape[0]} x {self.image_shape[1]}."
            )
        if not sigma > 0 or not 0 < smallest_gain < 1:
            raise UsageError(
                f"sigma is positive and smallest_gain between 0 and 1; got sigma={sigma}, "
                f"smallest_gain={smallest_gain}."
            )
        self.kernel_size = kernel_size
        self.sigma = sigma
        self.smallest_gain = smallest_gain
        self._gain = _separable_gain(self.image_shape, kernel_size, sigma)

    @classmethod
    def for_grid(cls, image_shape: tuple[int, int], spacing_mm: float, **options: Any) -> Self:
        """The blur of a grid; kernel size and sigma are in pixels, so the spacing does not matter."""
        return cls(image_shape, **options)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The blurred image, [batch, 1, height, width]."""
        return self._filtered(image, self._gain)

    def adjoint(self, measurement: torch.Tensor) -> torch.Tensor:
        """The same blur again, since the kernel is symmetric: [batch, 1, height, width]."""
        return self._filtered(measurement, self._gain)

    def pseudo_inverse(self, measurement: torch.Tensor) -> torch.Tensor:
        """The truncated inverse: frequencies are divided by their gain, those with |gain| < smallest_gain are
        0.

        This is the Moore-Penrose inverse of the blur without the frequencies that it all but removes; noise
        grows at most 1 / smallest_gain times.
        """
        lost = self._gain.abs() < self.smallest_gain
        return self._filtered(measurement, torch.where(lost, 0.0, 1 / torch.where(lost, 1.0, self._gain)))

    def _filtered(self, image: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        if tuple(image.shape[1:]) != self.measurement_shape:
            raise UsageError(
                f"This blur takes images of shape [batch, 1, {self.image_shape[0]}, {self.image_shape[1]}], "
                f"not {list(image.shape)}."
            )
        image = image if image.dtype == torch.float64 else image.to(torch.float32)
        return torch.fft.irfft2(torch.fft.rfft2(image) * gain.to(image), s=self.image_shape)


def _separable_gain(image_shape: tuple[int, int], kernel_size: int, sigma: float) -> torch.Tensor:
    """Gain of every frequency of `rfft2`, real by symmetry: float64 [height, width // 2 + 1]."""
    distance = torch.arange(kernel_size, dtype=torch.float64) - kernel_size // 2
    kernel = torch.exp(-0.5 * (distance / sigma).square())
    kernel = kernel / kernel.sum()

    def gain(length: int) -> torch.Tensor:
        padded = torch.cat([kernel, kernel.new_zeros(length - kernel_size)]).roll(-(kernel_size // 2))
        return torch.fft.fft(padded).real

    height, width = image_shape
    return gain(height)[:, None] * gain(width)[None, : width // 2 + 1]
