"""A scan with a moving table: a curved detector of several rows on a helix over the chosen slices."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from klip_engine.io.projections.circular import fan_circle
from klip_engine.operators import FanGeometry, ScanGeometry
from klip_engine.simulation.acquisition import STAGE, Course, Tell
from klip_engine.simulation.arrangement import detector_of, moved_along_z
from klip_engine.simulation.beam import Beam
from klip_engine.simulation.helix_projector import HelixProjector, Stack
from klip_engine.simulation.room import refuse_what_has_no_room
from klip_engine.simulation.scanned_volume import ScannedVolume
from klip_engine.simulation.settings import SimulationSettings
from klip_engine.simulation.sub_rays import sub_rays

_THICKEST_BOX_MM = 1.5
"""Thicker slices are divided, linear in between: boxes would be seen as steps along z."""


def helical_angles(plane: ScanGeometry, scanned: ScannedVolume, settings: SimulationSettings) -> ScanGeometry:
    """The written angles of all views of a helix in whose plane `plane` lies: as many as `arc_deg` says, or until
    every chosen slice was under the rows for a full turn. Raises UsageError where they would fill the memory."""
    step = math.radians(settings.step_deg)
    if settings.arc_deg is None:
        height = scanned.heights_mm[-1] - scanned.heights_mm[0] + scanned.thickness_mm
        turns = (height + max(settings.collimation_mm, settings.feed_mm)) / settings.feed_mm
        views = math.ceil(turns * settings.views)
    else:
        views = round(math.radians(settings.arc_deg) / step)
    values = views * settings.detector_rows * settings.detector_bins
    refuse_what_has_no_room("the helix", values, "give fewer slices, views, rows or turns, or a larger --pitch")
    first = plane.view_angles_rad[0]
    return replace(plane, view_angles_rad=tuple(first + i * step for i in range(views)))


def helical_course(scanned: ScannedVolume, written: ScanGeometry, settings: SimulationSettings) -> Course:
    """The table moves towards the head's end of the volume under the gantry's turn, evenly, from before the first
    slice to behind the last."""
    assert isinstance(written, FanGeometry)
    angles = np.array(written.view_angles_rad)
    circle = fan_circle(angles, written.source_to_isocentre_mm, written.source_to_detector_mm)
    detector = detector_of(written, settings.detector_rows, settings.row_mm)
    return Course(moved_along_z(circle, _heights(scanned, len(angles), settings)), detector, scanned.heights_mm[0])


def helical_scan(
    scanned: ScannedVolume,
    true: ScanGeometry,
    settings: SimulationSettings,
    beam: Beam,
    progress: Tell | None = None,
) -> torch.Tensor:
    """Signal over that in air, float32 [view, row, column] of the course."""
    assert isinstance(true, FanGeometry)
    heights = _heights(scanned, len(true.view_angles_rad), settings)
    bundle = sub_rays(settings.bundle, settings.spot_mm, math.radians(settings.exposed_deg))
    projector = HelixProjector(
        true, heights.tolist(), settings.detector_rows, settings.row_mm, bundle, rays=settings.rays
    )
    tell = None if progress is None else partial(progress, STAGE)
    return projector.transmission(_stack(scanned, beam, scanned.heights_mm[0]), beam, tell)


def _heights(scanned: ScannedVolume, views: int, settings: SimulationSettings) -> npt.NDArray[np.float64]:
    """Of every view over the first slice."""
    bottom, top = scanned.heights_mm[0], scanned.heights_mm[-1]
    travelled = (np.arange(views) - (views - 1) / 2) / settings.views * settings.feed_mm
    return (top - bottom) / 2 + travelled


def _stack(scanned: ScannedVolume, beam: Beam, isocentre_mm: float) -> Stack:
    """The whole volume, its slices divided into boxes no thicker than `_THICKEST_BOX_MM`."""
    geometry = scanned.volume.geometry
    parts = math.ceil(geometry.spacing[2] / _THICKEST_BOX_MM - 1e-4)
    thickness = geometry.spacing[2] / parts
    first = geometry.origin[2] - (parts - 1) / 2 * thickness
    planes = np.stack([scanned.plane(first + i * thickness) for i in range(geometry.size[2] * parts)])
    return Stack(beam.taken_apart(torch.from_numpy(planes)), first - isocentre_mm, thickness)
