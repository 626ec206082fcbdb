"""Where the file of a simulated scan says that the rays ran, and how the work on it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from klip_engine.projections import Detector, Trajectory

Tell = Callable[[str, int, int], None]
STAGE = "projecting"


class Course(NamedTuple):
    """Known before anything is measured; z_mm: LPS of the isocentre."""

    trajectory: Trajectory
    detector: Detector
    z_mm: float
