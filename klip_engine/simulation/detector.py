"""From the signal behind the body to what a scanner writes: scatter, gain, counting, logarithm, dead elements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from klip_engine.operators import NOISE_PRESETS, TransmissionNoise
from klip_engine.simulation.beam import Beam
from klip_engine.simulation.settings import SimulationSettings

_BEHIND_BODY = 0.95
"""Rays that lose at least 5 % went through something."""
_DRIFT = (0.7, 0.97)
"""Gains of drifting elements: they show as rings."""
_LEAST_SIGNAL = 1e-6
_VIEWS_AT_ONCE = 64
_NOISELESS_I0 = 1e7
"""Weights of noiseless scans with dead elements are those of so many photons: the dead ones need their 0."""


@dataclass(frozen=True)
class Faults:
    """Of each detector element [rows, columns]: whether it is known to be dead, and by what it multiplies."""

    dead: npt.NDArray[np.bool_]
    gain: npt.NDArray[np.float32]

    @staticmethod
    def drawn(settings: SimulationSettings, shape: tuple[int, int], rng: np.random.Generator) -> Faults:
        """At random elements, as many as the settings ask for."""
        elements = int(np.prod(shape))
        dead = np.zeros(elements, dtype=bool)
        gain = np.ones(elements, dtype=np.float32)
        order = rng.permutation(elements)
        dead_count, drifting = (round(s * elements) for s in (settings.dead_pixels, settings.drifting_pixels))
        dead[order[:dead_count]] = True
        gain[order[dead_count : dead_count + drifting]] = rng.uniform(
            *_DRIFT, size=min(drifting, elements - dead_count)
        )
        return Faults(dead.reshape(shape), gain.reshape(shape))


@dataclass(frozen=True)
class Reading:
    """line_integrals and weights (None: unknown) [view, row, column]."""

    line_integrals: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32] | None


def dose_of(settings: SimulationSettings) -> TransmissionNoise | None:
    """The noise of the settings' dose; None without noise."""
    return None if settings.dose == "none" else NOISE_PRESETS[settings.dose]


def read_out(
    transmission: torch.Tensor, beam: Beam, settings: SimulationSettings, faults: Faults, generator: torch.Generator
) -> Reading:
    """What the detector makes of the signal behind the body over that in air, [view, row, column].

    Scatter is the same for all elements of a row in a view, `scatter` times the median behind the body, and is left
    uncorrected. A dead element has weight 0 and the value 0. A drifting one multiplies its signal, and its weight
    does not say so.
    """
    noise = dose_of(settings)
    gain, dead = torch.from_numpy(faults.gain), torch.from_numpy(faults.dead)
    integrals = np.empty(transmission.shape, dtype=np.float32)
    weights = np.empty(transmission.shape, dtype=np.float32) if noise or faults.dead.any() else None
    for first in range(0, len(transmission), _VIEWS_AT_ONCE):
        signal = transmission[first : first + _VIEWS_AT_ONCE]
        signal = (signal + settings.scatter * _behind_body(signal)) * gain
        ideal = -torch.log(signal.clamp(min=_LEAST_SIGNAL))
        if noise is None:
            measured, trust = ideal, _NOISELESS_I0 * torch.exp(-ideal)
        else:
            noisy = noise.apply(ideal, generator)
            measured, trust = noisy.measurement, noisy.weights
        corrected, slope = beam.corrected(measured)
        views = slice(first, first + len(signal))
        integrals[views] = torch.where(dead, 0, corrected)
        if weights is not None:
            weights[views] = torch.where(dead, 0, trust / slope.square())
    return Reading(integrals, weights)


def _behind_body(signal: torch.Tensor) -> torch.Tensor:
    """Median signal of the rays of each row that went through something, 0 where none did: [view, row, 1]."""
    behind = torch.where(signal < _BEHIND_BODY, signal, torch.nan)
    return behind.nanmedian(dim=-1, keepdim=True).values.nan_to_num(0.0)
