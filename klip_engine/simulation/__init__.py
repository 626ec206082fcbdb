"""Scans simulated from volumes: not with the reconstruction's projector and grid, and by scanners that err."""

from klip_engine.simulation.arrangement import plane_scan
from klip_engine.simulation.plane_projector import PlaneProjector
from klip_engine.simulation.resting_scan import plane_projector
from klip_engine.simulation.scanned_volume import ScannedVolume, scanned_volume
from klip_engine.simulation.settings import SimulationSettings
from klip_engine.simulation.simulate import beam_for, mu_water_per_mm, simulate

__all__ = [
    "PlaneProjector",
    "ScannedVolume",
    "SimulationSettings",
    "beam_for",
    "mu_water_per_mm",
    "plane_projector",
    "plane_scan",
    "scanned_volume",
    "simulate",
]
