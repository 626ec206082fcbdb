"""A scan of slices at rest: one turn each (fans), or all at once (parallel beams, a detector row for each)."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch

from klip_engine.operators import ScanGeometry
from klip_engine.simulation.acquisition import STAGE, Course, Tell
from klip_engine.simulation.arrangement import detector_of, resting_trajectory
from klip_engine.simulation.beam import Beam
from klip_engine.simulation.plane_projector import DEFAULT_KEPT_BYTES, PlaneProjector
from klip_engine.simulation.scanned_volume import ScannedVolume
from klip_engine.simulation.settings import SimulationSettings
from klip_engine.simulation.sub_rays import sub_rays


def resting_course(scanned: ScannedVolume, written: ScanGeometry, settings: SimulationSettings) -> Course:
    """Fans: a turn per slice, one after the other; parallel beams: one turn, for the rows are the slices."""
    heights = np.array(scanned.heights_mm)
    if settings.is_fan:
        trajectory = resting_trajectory(written, heights - heights[0])
        detector = detector_of(written, 1, scanned.thickness_mm * written.magnification)
        return Course(trajectory, detector, float(heights[0]))
    detector = detector_of(written, len(heights), scanned.thickness_mm)
    return Course(resting_trajectory(written, heights), detector, float(heights.mean()))


def resting_scan(
    scanned: ScannedVolume,
    true: ScanGeometry,
    settings: SimulationSettings,
    beam: Beam,
    progress: Tell | None = None,
) -> torch.Tensor:
    """Every measured slice by the same turn: signal over that in air, float32 [view, row, column] of the course.

    A slice of several planes is their mean in intensity.
    """
    hu = np.concatenate([scanned.planes_of(number) for number in range(len(scanned.heights_mm))])
    tell = None if progress is None else partial(progress, STAGE)
    # Used once: matrices are not worth their memory.
    projector = plane_projector(true, settings, kept_bytes=0)
    signal = projector.transmission(beam.taken_apart(torch.from_numpy(hu)), beam, tell)
    signal = signal.unflatten(0, (-1, scanned.planes)).mean(dim=1)
    return signal.flatten(end_dim=1)[:, None] if settings.is_fan else signal.transpose(0, 1).contiguous()


def plane_projector(
    true: ScanGeometry, settings: SimulationSettings, *, kept_bytes: int = DEFAULT_KEPT_BYTES
) -> PlaneProjector:
    """For slices of one geometry (`plane_scan`, `true_angles`): made once, used for many."""
    bundle = sub_rays(settings.bundle, settings.spot_mm, math.radians(settings.exposed_deg))
    return PlaneProjector(true, bundle, rays=settings.rays, kept_bytes=kept_bytes)
