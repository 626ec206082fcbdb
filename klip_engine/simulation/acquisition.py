"""What a scanner took of a body: the signal of every detector element, and where the file says the rays ran."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from klip_engine.projections import Detector, Trajectory

Tell = Callable[[str, int, int], None]
STAGE = "projecting"


class Acquisition(NamedTuple):
    """signal: behind the body over that in air, float32 [view, row, column]; z_mm: LPS of the isocentre."""

    signal: torch.Tensor
    trajectory: Trajectory
    detector: Detector
    z_mm: float
