"""Measurements of slices: what the operator sees of images x = HU / 1000, ideal or with the noise of a dose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from klip_engine.errors import InputError, UsageError
from klip_engine.operators import (
    Channelwise,
    CTOperator,
    GaussianNoise,
    LinearOperator,
    TransmissionNoise,
    build_operator,
    geometry_from_dict,
    noise_preset,
)
from klip_engine.samplers import Measurement, seeded_generator
from klip_engine.settings import OperatorSettings

_IDEAL_SCAN_SIGMA_MM = 0.2
"""Standard deviation the data term assumes for an ideal scan, in mm of water. Chosen on four slices of unseen
patients from 24 views: 0.5 and more leave more error, less than 0.1 lets conjugate gradients run out of steps."""


class Scanner(Protocol):
    """Where the measurements of slices come from."""

    def measure(self, images: torch.Tensor, slices: Sequence[int]) -> Measurement:
        """Of images [batch, channels, h, w] with values in [-1, 1]; `slices` are their numbers."""
        ...


@dataclass(frozen=True)
class SimulatedScanner:
    """Measures slices with an operator; the same slice number and seed always give the same noise.

    variance: what the data term assumes of measurements without a dose; model_variance: what it adds to the noise
    of a dose; noise: added to measurements without a dose, if anything.
    """

    operator: LinearOperator
    variance: float
    dose: TransmissionNoise | None
    seed: int
    noise: GaussianNoise | None = None
    model_variance: float = 0.0

    def measure(self, images: torch.Tensor, slices: Sequence[int]) -> Measurement:
        """Measure images [batch, channels, h, w] with values in [-1, 1]; `slices` are their numbers."""
        if self.dose is None:
            data = self.operator.forward(images)
            if self.noise is not None:
                data = self.noise.apply(data, self._generators(slices)).measurement
            return Measurement(self.operator, data, self.variance)
        mu_water = self.dose.mu_water_per_mm
        ideal = mu_water * self.operator.forward((images + 1).clamp(min=0))
        noisy = self.dose.apply(ideal, self._generators(slices))
        water = self.operator.forward(torch.ones_like(images[:1]))
        variance = self.model_variance + 1 / (noisy.weights * mu_water**2)
        return Measurement(self.operator, noisy.measurement / mu_water - water, variance)

    def _generators(self, slices: Sequence[int]) -> list[torch.Generator]:
        return [seeded_generator("measurement", self.seed, number) for number in slices]


def build_scanner(
    settings: OperatorSettings, image_shape: tuple[int, int], pixel_mm: float, seed: int, channels: int = 1
) -> SimulatedScanner:
    """The scanner the settings describe, for images of (height, width); raises UsageError where they do not fit."""
    if settings.scan is not None:
        return _as_measured(settings.scan, image_shape, pixel_mm, seed, channels)
    blur = settings.blur(image_shape)
    if settings.sees_images:
        if settings.views is not None or settings.dose is not None:
            raise UsageError(f"the operator '{settings.name}' has no views and no dose")
        variance, dose = (settings.noise_hu / 1000) ** 2, None
    else:
        if settings.add_noise or blur:
            raise UsageError(f"the operator '{settings.name}' has no blur, and its noise is set by its dose")
        variance = _IDEAL_SCAN_SIGMA_MM**2
        dose = None if settings.dose is None else noise_preset(settings.dose)
    operator = build_operator(
        settings.name,
        image_shape,
        pixel_mm,
        channels=channels,
        views=settings.views,
        arc_deg=settings.arc_deg,
        start_deg=settings.start_deg,
        **blur,
    )
    noise = GaussianNoise(settings.noise_hu / 1000) if settings.add_noise else None
    return SimulatedScanner(operator, variance, dose, seed, noise)


def _as_measured(
    scan: dict[str, Any], image_shape: tuple[int, int], pixel_mm: float, seed: int, channels: int
) -> SimulatedScanner:
    """A simulation of a measured scan (`klip_engine.measured_scan.scan_settings`), of images on its isocentre."""
    try:
        geometry = replace(geometry_from_dict(scan["geometry"]), image_shape=image_shape, pixel_spacing_mm=pixel_mm)
        dose = TransmissionNoise(float(scan["i0"]), 0.0, float(scan["mu_water_per_mm"]))
        model_variance = float(scan["model_sigma_mm"]) ** 2
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise UsageError(f"the settings of the measured scan are damaged: {error}") from error
    operator: LinearOperator = CTOperator(geometry)
    if channels > 1:
        operator = Channelwise(operator, channels)
    return SimulatedScanner(operator, model_variance, dose, seed, model_variance=model_variance)
