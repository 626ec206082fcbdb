"""Where source and detector of a simulated scan stand: as the file says, and as they truly stood."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from klip_engine.errors import UsageError
from klip_engine.io.projections.circular import fan_circle, parallel_circle
from klip_engine.operators import FanCurvedGeometry, FanFlatGeometry, FanGeometry, ParallelGeometry, ScanGeometry
from klip_engine.projections import Detector, Trajectory
from klip_engine.simulation.room import refuse_what_has_no_room
from klip_engine.simulation.scanned_volume import ScannedVolume
from klip_engine.simulation.settings import SimulationSettings

_KINDS: dict[str, type[ScanGeometry]] = {
    "parallel": ParallelGeometry,
    "fan-flat": FanFlatGeometry,
    "fan-curved": FanCurvedGeometry,
    "helical": FanCurvedGeometry,
}


def plane_scan(settings: SimulationSettings, scanned: ScannedVolume) -> ScanGeometry:
    """The geometry of one slice, with the scanned volume's pixels, as it is written.

    Raises UsageError where the source would stand in the body, where no ray meets it, and where a scan of it
    would fill the memory.
    """
    _check_source(settings, scanned)
    _check_fan(settings)
    grid = scanned.volume.geometry
    crossings = settings.detector_bins * 2 * max(grid.size[:2])
    refuse_what_has_no_room("the rays of one view through the volume", 16 * crossings, "give fewer --detector-bins")
    if settings.geometry != "helical":
        values = len(scanned.heights_mm) * settings.views * settings.detector_bins
        refuse_what_has_no_room("the scan", values, "give fewer slices, views or bins")
    distances: dict[str, Any] = (
        {
            "source_to_isocentre_mm": settings.source_isocentre_mm,
            "source_to_detector_mm": settings.source_detector_mm,
        }
        if settings.is_fan
        else {}
    )
    start = math.radians(settings.start_deg)
    scan = _KINDS[settings.geometry](
        view_angles_rad=tuple(start + i * math.radians(settings.step_deg) for i in range(settings.views)),
        detector_count=settings.detector_bins,
        detector_pitch_mm=settings.column_mm,
        detector_offset_bins=settings.offset_bins,
        image_shape=(1, 1),
        pixel_spacing_mm=grid.spacing[0],
        **distances,
    )
    nearest, _ = _reach_mm(scan)
    if nearest >= scanned.body_radius_mm:
        raise UsageError(
            f"the detector sees nothing of the body: its nearest ray passes {nearest:.0f} mm from the isocentre, "
            f"the body reaches {scanned.body_radius_mm:.0f} mm; give a smaller offset"
        )
    return replace(scan, image_shape=(grid.size[1], grid.size[0]))


def truncation_notice(scan: ScanGeometry, scanned: ScannedVolume) -> tuple[str, ...]:
    """A sentence where the detector does not reach over everything in the volume that is denser than lung."""
    _, farthest = _reach_mm(scan)
    if farthest >= scanned.body_radius_mm:
        return ()
    return (
        f"The detector reaches {farthest:.0f} mm from the isocentre, the body or its table "
        f"{scanned.body_radius_mm:.0f} mm: the scan is truncated.",
    )


def true_angles(scan: ScanGeometry, settings: SimulationSettings, rng: np.random.Generator) -> ScanGeometry:
    """The geometry as it truly was: every turn of the scan errs alike."""
    angles = np.array(scan.view_angles_rad)
    errors = settings.angle_step_error_deg * np.arange(len(angles))
    errors = errors + settings.angle_jitter_deg * rng.standard_normal(len(angles))
    return replace(scan, view_angles_rad=tuple((angles + np.radians(errors)).tolist()))


def resting_trajectory(scan: ScanGeometry, heights_mm: npt.NDArray[np.float64]) -> Trajectory:
    """A turn of a fan at each of these heights over the isocentre, one after the other; of parallel rays one turn,
    for the rows of the detector are the slices."""
    angles = np.array(scan.view_angles_rad)
    if not isinstance(scan, FanGeometry):
        return parallel_circle(angles)
    turns = len(heights_mm)
    circle = fan_circle(np.tile(angles, turns), scan.source_to_isocentre_mm, scan.source_to_detector_mm)
    z = np.repeat(heights_mm, len(angles))
    return moved_along_z(circle, z)


def moved_along_z(circle: Trajectory, z_mm: npt.NDArray[np.float64]) -> Trajectory:
    """Source and detector of every view moved to its height over the isocentre."""
    assert circle.source_mm is not None
    along = np.stack([0 * z_mm, 0 * z_mm, z_mm], axis=1)
    return replace(circle, det_center_mm=circle.det_center_mm + along, source_mm=circle.source_mm + along)


def detector_of(scan: ScanGeometry, rows: int, row_mm: float) -> Detector:
    """The detector as it is written; rows count towards the head, (rows - 1) / 2 at the height of the isocentre."""
    central = ((scan.detector_count - 1) / 2 - scan.detector_offset_bins, (rows - 1) / 2)
    radius = scan.source_to_detector_mm if isinstance(scan, FanCurvedGeometry) else None
    return Detector(
        "flat" if radius is None else "cylindrical",
        scan.detector_count,
        rows,
        scan.detector_pitch_mm,
        row_mm,
        central,
        radius,
    )


def _check_source(settings: SimulationSettings, scanned: ScannedVolume) -> None:
    grid = scanned.volume.geometry
    if not settings.is_fan:
        return
    if settings.source_isocentre_mm <= scanned.body_radius_mm:
        raise UsageError(
            f"the source, {settings.source_isocentre_mm:g} mm from the isocentre, would stand in the body, which "
            f"reaches {scanned.body_radius_mm:.0f} mm; move it away"
        )
    corner = math.hypot(grid.size[0], grid.size[1]) / 2 * grid.spacing[0]
    if settings.source_isocentre_mm <= corner:
        raise UsageError(
            f"the source, {settings.source_isocentre_mm:g} mm from the isocentre, would stand in the volume, whose "
            f"corners lie {corner:.0f} mm away; move the source away or crop the volume"
        )


def _check_fan(settings: SimulationSettings) -> None:
    farthest = (settings.detector_bins / 2 + abs(settings.offset_bins)) * settings.column_mm
    if settings.geometry in ("fan-curved", "helical") and farthest / settings.source_detector_mm >= math.pi / 2:
        raise UsageError(
            f"the curved detector would reach {math.degrees(farthest / settings.source_detector_mm):.0f} degrees "
            "around the source; give fewer or narrower bins or a smaller offset"
        )


def _reach_mm(scan: ScanGeometry) -> tuple[float, float]:
    """Distances from the axis of the rays of a view: the nearest, and of the outermost on the side that sees more
    (over a full turn that side sees all around; a shorter arc cannot, but is not told apart here)."""
    rays = scan.rays(0, 1)
    distance = rays.point[:, 0] * rays.direction[:, 1] - rays.point[:, 1] * rays.direction[:, 0]
    return float(distance.abs().min()), float(distance.abs().max())
