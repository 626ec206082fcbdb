"""Noise of a measurement, and the units in between: HU, attenuation per mm, line integrals, photon counts.

Randomness comes from the generators passed in. Every item of a batch is drawn on its own, so with one
generator per item an item's noise does not depend on what else is in the batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

import torch

from klip_engine.errors import UsageError
from klip_engine.operators.base import LinearOperator

MU_WATER_PER_MM = 0.0192
"""Attenuation of water at about 70 keV."""

Generators = torch.Generator | Sequence[torch.Generator]
"""One generator for the whole batch, used item after item, or one per item."""


@dataclasses.dataclass(frozen=True)
class NoisyMeasurement:
    """A measurement as taken, and how far each value can be trusted; both [batch, *measurement_shape]."""

    measurement: torch.Tensor
    weights: torch.Tensor
    """Inverse variance of each value, estimated from the measurement itself."""


class NoiseModel(Protocol):
    """What turns ideal measurements into noisy ones."""

    def apply(self, ideal: torch.Tensor, generator: Generators) -> NoisyMeasurement:
        """[batch, *measurement_shape] in, the same out with weights."""
        ...


@dataclasses.dataclass(frozen=True)
class TransmissionNoise:
    """Photon counting and electronic noise of an X-ray transmission measurement.

        counts = Poisson(I0 exp(-p)) + Normal(0, sigma_e^2) p' = min(-log(max(counts, floor) / I0), cap),
        weight = c^2 / (c + sigma_e^2) with c = max(counts, floor)

    The weight is the inverse of the variance of p' to first order. Raises `UsageError` for values out of
    range.
    """

    i0: float
    """Photons per ray without an object."""
    electronic_sigma: float = 5.0
    """Standard deviation of the electronic noise, in photons."""
    mu_water_per_mm: float = MU_WATER_PER_MM
    """Attenuation of water with which images in HU become line integrals."""
    smallest_count: float = 1.0
    """Counts below this are raised to it before the logarithm."""
    largest_line_integral: float = 9.0

    def __post_init__(self) -> None:
        for field in ("i0", "mu_water_per_mm", "smallest_count", "largest_line_integral"):
            if not getattr(self, field) > 0:
                raise UsageError(
                    f"{field} of the transmission noise is {getattr(self, field)}; it must be positive."
                )
        if not 0 <= self.electronic_sigma < math.inf or not self.i0 < math.inf:
            raise UsageError("electronic_sigma of the transmission noise must be 0 or more, and i0 finite.")

    def apply(self, ideal: torch.Tensor, generator: Generators) -> NoisyMeasurement:
        """Ideal line integrals (no unit) [batch, views, bins] to measured ones of the same shape."""
        expected = self.i0 * torch.exp(-ideal)
        counts = torch.stack(
            [
                self._counts(item, rng)
                for item, rng in zip(expected, _per_item(generator, len(expected)), strict=True)
            ]
        ).clamp(min=self.smallest_count)
        measured = (-torch.log(counts / self.i0)).clamp(max=self.largest_line_integral)
        return NoisyMeasurement(measured, counts.square() / (counts + self.electronic_sigma**2))

    def _counts(self, expected: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        expected_there = expected.to(generator.device)
        counts = torch.poisson(expected_there, generator=generator)
        if self.electronic_sigma > 0:
            counts = counts + self.electronic_sigma * _normal(expected_there, generator)
        return counts.to(expected.device)


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """White Gaussian noise of deviation `sigma`, in the measurement's unit; weights are 1 / sigma^2."""

    sigma: float

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise UsageError(f"sigma of the Gaussian noise is {self.sigma}; it must be positive and finite.")

    def apply(self, ideal: torch.Tensor, generator: Generators) -> NoisyMeasurement:
        """Ideal measurements [batch, ...] to noisy ones of the same shape."""
        noise = [
            _normal(item, rng).to(item.device)
            for item, rng in zip(ideal, _per_item(generator, len(ideal)), strict=True)
        ]
        return NoisyMeasurement(ideal + self.sigma * torch.stack(noise), torch.full_like(ideal, self.sigma**-2))


NOISE_PRESETS: dict[str, TransmissionNoise] = {
    "standard": TransmissionNoise(i0=1e6),
    "low": TransmissionNoise(i0=2.5e5),
    "very-low": TransmissionNoise(i0=1e5),
    # Leuschner et al., Scientific Data 8, 2021, 109: no electronic noise, counts of zero set to 0.1.
    "lodopab": TransmissionNoise(
        i0=4096,
        electronic_sigma=0.0,
        mu_water_per_mm=0.02,
        smallest_count=0.1,
        largest_line_integral=math.inf,
    ),
}


def noise_preset(name: str) -> TransmissionNoise:
    """The transmission noise of that name; raises `UsageError` for a name not in `NOISE_PRESETS`."""
    if name not in NOISE_PRESETS:
        raise UsageError(f"Unknown noise preset {name!r}; it is one of {', '.join(NOISE_PRESETS)}.")
    return NOISE_PRESETS[name]


def hu_to_mu(hu: torch.Tensor, mu_water_per_mm: float = MU_WATER_PER_MM) -> torch.Tensor:
    """Attenuation per mm, mu_water (1 + HU / 1000), at least 0; any shape."""
    return (mu_water_per_mm * (1 + hu / 1000)).clamp(min=0)


def mu_to_hu(mu_per_mm: torch.Tensor, mu_water_per_mm: float = MU_WATER_PER_MM) -> torch.Tensor:
    """HU, 1000 (mu / mu_water - 1); any shape."""
    return 1000 * (mu_per_mm / mu_water_per_mm - 1)


def line_integrals_of_hu(
    operator: LinearOperator, hu: torch.Tensor, mu_water_per_mm: float = MU_WATER_PER_MM
) -> torch.Tensor:
    """Line integrals of attenuation (no unit) of images in HU; shapes as for `operator.forward`."""
    return operator.forward(hu_to_mu(hu, mu_water_per_mm))


def _normal(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(like.shape, dtype=like.dtype, device=generator.device, generator=generator)


def _per_item(generator: Generators, items: int) -> list[torch.Generator]:
    if isinstance(generator, torch.Generator):
        return [generator] * items
    if len(generator) != items:
        raise UsageError(f"A batch of {items} needs one generator or {items}, not {len(generator)}.")
    return list(generator)
