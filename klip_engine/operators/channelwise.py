"""Any operator of one channel, for images of several: each channel is measured alone."""

from __future__ import annotations

import torch

from klip_engine.errors import UsageError
from klip_engine.operators.base import LinearOperator


class Channelwise:
    """The block-diagonal operator diag(A, ..., A): images [batch, channels, height, width] to measurements
    [batch, channels, *A's measurement_shape].

    Raises `UsageError` for fewer than one channel or a tensor with another number of channels.
    """

    def __init__(self, operator: LinearOperator, channels: int) -> None:
        if channels < 1:
            raise UsageError(f"an image has at least 1 channel, not {channels}.")
        self.operator = operator
        self.channels = channels
        self.image_shape = operator.image_shape
        self.measurement_shape: tuple[int, ...] = (channels, *operator.measurement_shape)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """A of every channel: [batch, channels, height, width] -> [batch, *measurement_shape]."""
        self._check(image, "images")
        return self.operator.forward(image.flatten(0, 1)[:, None]).unflatten(0, image.shape[:2])

    def adjoint(self, measurement: torch.Tensor) -> torch.Tensor:
        """A^T of every channel: [batch, *measurement_shape] -> [batch, channels, height, width]."""
        self._check(measurement, "measurements")
        return self.operator.adjoint(measurement.flatten(0, 1))[:, 0].unflatten(0, measurement.shape[:2])

    def pseudo_inverse(self, measurement: torch.Tensor) -> torch.Tensor:
        """A's classical reconstruction of every channel, shapes as for `adjoint`."""
        self._check(measurement, "measurements")
        return self.operator.pseudo_inverse(measurement.flatten(0, 1))[:, 0].unflatten(0, measurement.shape[:2])

    def _check(self, tensor: torch.Tensor, what: str) -> None:
        if tensor.ndim < 3 or tensor.shape[1] != self.channels:
            raise UsageError(
                f"This operator takes {what} of {self.channels} channels, [batch, {self.channels}, ...], "
                f"not {list(tensor.shape)}."
            )
