"""Simulates a scan of a volume: what a scanner with these settings would have written of this patient."""

from __future__ import annotations

import numpy as np
import torch

from klip_engine.operators import MU_WATER_PER_MM
from klip_engine.projections import Projections, beam_of
from klip_engine.simulation.acquisition import Tell
from klip_engine.simulation.arrangement import plane_scan, true_angles, truncation_notice
from klip_engine.simulation.beam import Beam, OneEnergy
from klip_engine.simulation.detector import Faults, dose_of, read_out
from klip_engine.simulation.helix import helical_angles, helical_scan
from klip_engine.simulation.polychromatic import ManyEnergies
from klip_engine.simulation.resting_scan import resting_scan
from klip_engine.simulation.scanned_volume import ScannedVolume, scanned_volume
from klip_engine.simulation.settings import SimulationSettings
from klip_engine.volume import CTVolume, Geometry


def simulate(
    volume: CTVolume, settings: SimulationSettings | None = None, progress: Tell | None = None
) -> Projections:
    """A scan of a volume (HU) in its own patient coordinates, the isocentre in the middle of the volume's plane.

    progress(stage, done, total) is called now and then and may raise to stop. The same volume and settings give the
    same scan. Raises UsageError for scanners that cannot have measured this volume.
    """
    settings = settings or SimulationSettings()
    scanned = scanned_volume(volume, settings)
    of_angles, of_elements = (np.random.default_rng([settings.seed, part]) for part in (0, 1))
    written = plane_scan(settings, scanned)
    if settings.geometry == "helical":
        written, take = helical_angles(written, scanned, settings), helical_scan
    else:
        take = resting_scan
    true = true_angles(written, settings, of_angles)
    beam = beam_for(settings)
    taken = take(scanned, written, true, settings, beam, progress)
    faults = Faults.drawn(settings, (taken.detector.rows, taken.detector.columns), of_elements)
    reading = read_out(taken.signal, beam, settings, faults, torch.Generator().manual_seed(settings.seed))
    noise = dose_of(settings)
    return Projections(
        reading.line_integrals,
        taken.trajectory,
        taken.detector,
        beam_of(taken.trajectory, taken.detector),
        mu_water_per_mm(settings),
        weights=reading.weights,
        i0=None if noise is None else noise.i0,
        electronic_sigma=None if noise is None else noise.electronic_sigma,
        isocentre_mm=(*scanned.isocentre_mm, taken.z_mm),
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
