"""Simulates a scan of a volume: what a scanner with these settings would have written of this patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from klip_engine.operators import MU_WATER_PER_MM, ScanGeometry
from klip_engine.projections import Projections, beam_of
from klip_engine.simulation.acquisition import Course, Tell
from klip_engine.simulation.arrangement import plane_scan, true_angles, truncation_notice
from klip_engine.simulation.beam import Beam, OneEnergy
from klip_engine.simulation.detector import Faults, dose_of, read_out
from klip_engine.simulation.helix import helical_angles, helical_course, helical_scan
from klip_engine.simulation.polychromatic import ManyEnergies
from klip_engine.simulation.resting_scan import resting_course, resting_scan
from klip_engine.simulation.scanned_volume import ScannedVolume, scanned_volume
from klip_engine.simulation.settings import SimulationSettings
from klip_engine.volume import CTVolume, Geometry


def simulate(
    volume: CTVolume,
    settings: SimulationSettings | None = None,
    progress: Tell | None = None,
    planned: Callable[[Projections], None] | None = None,
) -> Projections:
    """A scan of a volume (HU) in its own patient coordinates, the isocentre in the middle of the volume's plane.

    progress(stage, done, total) is called now and then and may raise to stop; planned(scan) once, before anything
    is projected, with the scan as it will be but for its values, all 0, and may raise, too. The same
    volume and settings give the same scan. Raises UsageError for scanners that cannot have measured this volume.
    """
    settings = settings or SimulationSettings()
    scanned = scanned_volume(volume, settings)
    of_angles, of_elements = (np.random.default_rng([settings.seed, part]) for part in (0, 1))
    written = plane_scan(settings, scanned)
    if settings.geometry == "helical":
        written, course_of, take = helical_angles(written, scanned, settings), helical_course, helical_scan
    else:
        course_of, take = resting_course, resting_scan
    scan = _unmeasured(course_of(scanned, written, settings), volume, scanned, settings, written)
    if planned is not None:
        planned(scan)
    true = true_angles(written, settings, of_angles)
    beam = beam_for(settings)
    signal = take(scanned, true, settings, beam, progress)
    faults = Faults.drawn(settings, (scan.detector.rows, scan.detector.columns), of_elements)
    reading = read_out(signal, beam, settings, faults, torch.Generator().manual_seed(settings.seed))
    return replace(scan, line_integrals=reading.line_integrals, weights=reading.weights)


def _unmeasured(
    course: Course, volume: CTVolume, scanned: ScannedVolume, settings: SimulationSettings, written: ScanGeometry
) -> Projections:
    """The scan as it will be, with zeros that take no memory for line integrals."""
    trajectory, detector, z_mm = course
    noise = dose_of(settings)
    return Projections(
        np.broadcast_to(np.float32(0), (trajectory.views, detector.rows, detector.columns)),
        trajectory,
        detector,
        beam_of(trajectory, detector),
        mu_water_per_mm(settings),
        i0=None if noise is None else noise.i0,
        electronic_sigma=None if noise is None else noise.electronic_sigma,
        isocentre_mm=(*scanned.isocentre_mm, z_mm),
        volume_hint=_own_grid(volume, scanned),
        description={"format": "simulated", "simulation": settings.to_dict()},
        notices=truncation_notice(written, scanned),
    )


def beam_for(settings: SimulationSettings) -> Beam:
    """The beam of the settings' tube voltage; without one, of the reconstruction's one energy."""
    mu = mu_water_per_mm(settings)
    if settings.kvp is None:
        return OneEnergy(mu)
    return ManyEnergies(settings.kvp, mu, water_correction=settings.water_correction)


def mu_water_per_mm(settings: SimulationSettings) -> float:
    """What water attenuates by in the scan: that of the dose preset."""
    noise = dose_of(settings)
    return MU_WATER_PER_MM if noise is None else noise.mu_water_per_mm


def _own_grid(volume: CTVolume, scanned: ScannedVolume) -> Geometry:
    """The grid to reconstruct on: the volume's own pixels where they lie along LPS, else the scanned ones."""
    own, axial = volume.geometry, scanned.volume.geometry
    same = np.allclose(np.reshape(own.direction, (3, 3)), np.eye(3), atol=1e-4)
    plane = own if same and abs(own.spacing[0] - own.spacing[1]) < 1e-4 * own.spacing[0] else axial
    return Geometry(
        (plane.size[0], plane.size[1], len(scanned.heights_mm)),
        (plane.spacing[0], plane.spacing[1], scanned.thickness_mm),
        (plane.origin[0], plane.origin[1], scanned.heights_mm[0]),
    )
