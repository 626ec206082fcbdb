"""A prior whose network counts its values in another unit than the engine: u = factor (x - offset).

Published networks are trained on images in [0, 1] or [-1, 1] of some window of Hounsfield units; the engine's
images are x = HU / 1000, those of photographs lie in [-1, 1]. An affine change of unit keeps the noise Gaussian:

    E[x0 | x, sigma] = offset + E[u0 | factor (x - offset), factor sigma] / factor.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from klip_engine.priors.base import Denoiser, NetworkDenoiser, PriorMean


@dataclass(frozen=True)
class ValueScale:
    """u = factor (x - offset): the network's values u of the engine's values x."""

    offset: float
    factor: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.offset) and math.isfinite(self.factor) and self.factor > 0):
            raise ValueError("the range of values must rise")

    @classmethod
    def between(cls, ours: tuple[float, float], theirs: tuple[float, float]) -> ValueScale:
        """The scale under which the network's `theirs` mean the engine's `ours`, end by end.

        Raises ValueError for a range that does not rise.
        """
        if not (ours[1] > ours[0] and theirs[1] > theirs[0]):
            raise ValueError("the range of values must rise")
        factor = (theirs[1] - theirs[0]) / (ours[1] - ours[0])
        return cls(ours[0] - theirs[0] / factor, factor)

    def to_network(self, x: torch.Tensor) -> torch.Tensor:
        """Values as the network counts them, any shape."""
        return self.factor * (x - self.offset)

    def from_network(self, result: PriorMean) -> PriorMean:
        """A mean and log variance as the engine counts them."""
        variance = result.log_variance
        return PriorMean(
            self.offset + result.mean / self.factor,
            None if variance is None else variance - 2 * math.log(self.factor),
        )


class ScaledDenoiser(NetworkDenoiser):
    """A `Denoiser` of another family, of which only the unit is changed; patch priors are a `ScaledPatchDenoiser`.

    data_variance: of the training images in the engine's unit, which published weights do not state; the default is
    that of CT slices in HU / 1000, about 0.5 squared.
    """

    family = "scaled"

    def __init__(self, inner: NetworkDenoiser, values: ValueScale, data_variance: float = 0.25) -> None:
        super().__init__()
        self.inner, self.values = inner, values
        self.channels, self.image_shape = inner.channels, inner.image_shape
        self.sigma_min, self.sigma_max = inner.sigma_min / values.factor, inner.sigma_max / values.factor
        self.data_variance = data_variance
        self.network = inner.network

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> PriorMean:
        """E[x0 | x_t = x]; x [batch, channels, h, w], sigma [batch]."""
        result: PriorMean = self.inner(self.values.to_network(x), self.values.factor * sigma)
        return self.values.from_network(result)

    def config(self) -> dict[str, Any]:
        """The inner prior's family and configuration, and the scale."""
        return {
            "values": asdict(self.values),
            "data_variance": self.data_variance,
            "family": self.inner.family,
            "denoiser": self.inner.config(),
        }

    @staticmethod
    def from_config(config: dict[str, Any]) -> ScaledDenoiser:
        """The denoiser `config` describes, without weights."""
        from klip_engine.priors.families import find_family

        if config["family"] == ScaledDenoiser.family:
            raise ValueError("a scaled prior inside a scaled prior")
        inner = find_family(config["family"]).build(config["denoiser"])
        return scaled(inner, ValueScale(**config["values"]), config["data_variance"])


class ScaledPatchDenoiser(ScaledDenoiser):
    """A scaled patch prior: its grid can be moved, too (`PatchTiled`)."""

    def __init__(self, inner: NetworkDenoiser, values: ValueScale, data_variance: float = 0.25) -> None:
        super().__init__(inner, values, data_variance)
        self.patch: int = inner.patch  # type: ignore[assignment]

    def at_offset(self, offset: tuple[int, int]) -> Denoiser:
        """The same prior with its grid moved by (rows, columns)."""
        return _ScaledView(self.inner.at_offset(offset), self)  # type: ignore[operator]


class _ScaledView:
    """A denoiser of the inner prior's making, in the engine's unit."""

    def __init__(self, inner: Denoiser, outer: ScaledDenoiser) -> None:
        self._inner, self._values = inner, outer.values
        self.channels, self.image_shape = outer.channels, outer.image_shape
        self.sigma_min, self.sigma_max = outer.sigma_min, outer.sigma_max
        self.data_variance = outer.data_variance

    def denoise(self, x: torch.Tensor, sigma: float) -> PriorMean:
        """E[x0 | x_t = x] for a batch [batch, channels, h, w] at one noise level."""
        values = self._values
        return values.from_network(self._inner.denoise(values.to_network(x), values.factor * sigma))


def scaled(inner: NetworkDenoiser, values: ValueScale, data_variance: float = 0.25) -> ScaledDenoiser:
    """A prior in the engine's unit; a patch prior stays one."""
    kind = ScaledPatchDenoiser if hasattr(inner, "at_offset") else ScaledDenoiser
    return kind(inner, values, data_variance)
