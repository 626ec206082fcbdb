"""Keeps the normalised updates of a detection as artifacts of the published pipeline, one file per slice.

Samplers of the published study fill `Step.update` with what their code keeps. For all others the update follows
from the two means of a step. With l = (E[x0 | x_t, y] - E[x0 | x_t]) / sigma^2, g^2 dt = d(sigma^2) and time in
steps (dt = 1), where step i stands for w_i of the integral over log sigma (`klip.quadrature`):

    g_i = sigma_i sqrt(2 w_i)          u_i = g_i l_i dt = sqrt(2 w_i) delta_i / sigma_i

so that the mean of u^2 over all T steps, the published recipe, is 2 / T times the KLIP integral of `klip.py`, and
over a window of T' steps 2 / T' times the integral over the noise levels these steps stand for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from klip_engine.errors import UsageError
from klip_engine.files import writable_folder
from klip_engine.io.artifacts import write_artifact
from klip_engine.samplers.base import Step
from klip_engine.scoring.klip import quadrature
from klip_engine.volume import BoolArray


def normalised_update(step: Step, weight: float) -> tuple[torch.Tensor, float]:
    """u = g l dt [batch, channels, h, w] and g of a step that is `weight` of the integral over log sigma."""
    g = step.sigma * math.sqrt(2 * weight)
    return g * (step.posterior_mean - step.prior_mean) / step.sigma**2, g


@dataclass
class UpdateRecorder:
    """A `StepObserver` that writes FOLDER/slice-0000.npz, -0001, ... as batches of slices come to their end.

    levels: the noise levels that will come; bodies: the patient, [slices, h, w], kept in the files; settings: of
    the run, kept in the files. Memory is that of the kept updates of one batch. Raises UsageError when the folder
    holds anything or cannot be written.
    """

    folder: Path
    levels: Sequence[float]
    bodies: BoolArray | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        writable_folder(self.folder, "name another folder for the updates")
        if any(self.folder.iterdir()):
            raise UsageError(f"{self.folder} is not empty; name a new or empty folder for the updates")
        self._weights = dict(zip(self.levels, quadrature(self.levels), strict=True))
        self._kept: list[_Kept] = []
        self._published = False

    def observe(self, step: Step) -> None:
        """Keep one step of the batch: the sampler's own update, or the one that follows from its means."""
        if step.update is not None:
            if not self._published:  # what followed from the means until here is not what this sampler keeps
                self._kept.clear()
                self._published = True
            if step.diffusion is None:
                raise ValueError("a step with an update also needs its diffusion coefficient")
            self._kept.append(_Kept(step.update.detach().cpu(), step.diffusion, step.sigma))
        elif not self._published:
            update, g = normalised_update(step, self._weights[step.sigma])
            self._kept.append(_Kept(update.cpu(), g, step.sigma))

    def finish(self, numbers: Sequence[int], samples: int) -> None:
        """Write the slices of a batch, whose steps held `samples` samples of each, slice by slice."""
        for place, number in enumerate(numbers):
            rows = slice(place * samples, (place + 1) * samples)
            write_artifact(
                artifact_path(self.folder, number),
                np.stack([kept.update[rows].numpy() for kept in self._kept]),
                [kept.g for kept in self._kept],
                sigma=[kept.sigma for kept in self._kept],
                body=None if self.bodies is None else self.bodies[number],
                settings=self.settings | {"slice": number},
            )
        self._kept, self._published = [], False


def artifact_path(folder: Path, number: int) -> Path:
    """The file of a working slice."""
    return folder / f"slice-{number:04d}.npz"


@dataclass(frozen=True)
class _Kept:
    update: torch.Tensor
    g: float
    sigma: float
