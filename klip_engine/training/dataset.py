"""Training slices: CT files brought onto a working grid, healthy ranges only, patient by patient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from klip_engine.errors import InputError
from klip_engine.io import read_ct
from klip_engine.io.sources import Source, healthy_slices
from klip_engine.working_grid import WorkingGrid, to_working_grid


@dataclass(frozen=True)
class SliceSet:
    """Slices for training: hu [n, 1, h, w] int16 and body [n, 1, h, w] bool on `grid`, and their patients."""

    hu: torch.Tensor
    body: torch.Tensor
    patients: tuple[str, ...]
    grid: WorkingGrid

    def __len__(self) -> int:
        return len(self.patients)


def load_slices(
    sources: Sequence[Source],
    grid: WorkingGrid,
    factor: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> SliceSet:
    """Read every source and bring its healthy slices onto `grid` refined by `factor` (see `augment`).

    Working slices are taken only where all source slices behind them are inside a healthy range.
    """
    fine = grid.refined(factor)
    hu: list[np.ndarray] = []
    body: list[np.ndarray] = []
    patients: list[str] = []
    for number, source in enumerate(sources):
        working = to_working_grid(read_ct(source.path).volume, fine, mask_table=False)
        keep = healthy_slices(source, working)
        hu.append(working.hu[keep].clip(-1024, 3071).astype(np.int16))
        body.append(working.body[keep])
        patients += [source.patient] * len(keep)
        if progress:
            progress(number + 1, len(sources))
    if not patients:
        raise InputError("the training data hold no healthy slice: check the ranges in the column 'slices'")
    return SliceSet(
        torch.from_numpy(np.concatenate(hu))[:, None],
        torch.from_numpy(np.concatenate(body))[:, None],
        tuple(patients),
        fine,
    )
