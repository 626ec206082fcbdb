"""What every method of comparison sees and gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from klip_engine.priors import Denoiser
from klip_engine.samplers import Measurement


@dataclass(frozen=True)
class Evidence:
    """A batch of slices as reconstructed by the run: all methods look at the same reconstructions.

    reconstruction: posterior mean [n, 1, h, w], HU / 1000; measurement: what it was reconstructed from;
    body: [n, h, w] bool; numbers: the numbers of the slices in the run, from which random numbers are drawn.
    """

    reconstruction: torch.Tensor
    measurement: Measurement
    body: torch.Tensor
    numbers: tuple[int, ...]

    def batches(self, size: int) -> Iterator[Evidence]:
        """The same in parts of at most `size` slices."""
        measurement = self.measurement
        for first in range(0, len(self.numbers), size):
            part = slice(first, first + size)
            variance = measurement.variance
            if isinstance(variance, torch.Tensor) and variance.ndim > 0:
                variance = variance[part]
            measured = Measurement(measurement.operator, measurement.data[part], variance)
            yield Evidence(self.reconstruction[part], measured, self.body[part], self.numbers[part])


@dataclass(frozen=True)
class Scores:
    """maps: anomaly per pixel [n, h, w], higher is stranger; slices: anomaly per slice [n]."""

    maps: torch.Tensor
    slices: torch.Tensor


class Baseline(Protocol):
    """A published or classic method. `name` labels it in tables, `source` says where it comes from."""

    name: str
    source: str

    @property
    def evaluations(self) -> int:
        """Network evaluations per slice (one image, one noise level)."""

    def fitted(self, denoiser: Denoiser, healthy: Evidence, seed: int) -> Baseline:
        """The method after looking at healthy slices; itself where it has nothing to learn from them."""

    def score(self, denoiser: Denoiser, evidence: Evidence, seed: int) -> Scores:
        """Score a batch; the same seed gives the same scores, whatever the batch size."""
