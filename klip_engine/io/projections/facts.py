"""What a scan is, in numbers a person checks: distances, arc, table feed, field of view, dose, what is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from klip_engine.projections import Projections

_VIEWS_LOOKED_AT = 64
_FULL_TURN_DEG = 359.0
_SAME_HEIGHT_MM = 0.02


def facts(projections: Projections) -> dict[str, Any]:
    """Plain values for JSON; lengths in mm, angles in degrees, None where a question makes no sense."""
    return {
        "beam": projections.beam,
        "views": projections.trajectory.views,
        "detector": _detector(projections),
        "geometry": _geometry(projections),
        "field_of_view_mm": _rounded(2 * field_of_view_radius_mm(projections)),
        "dose": _dose(projections),
        "line_integrals": [float(projections.line_integrals.min()), float(projections.line_integrals.max())],
        "mu_water_per_mm": projections.mu_water_per_mm,
        "missing": _missing(projections),
    }


def view_angles_deg(projections: Projections) -> npt.NDArray[np.float64]:
    """Angle of every view, made continuous, as `operators/geometry.py` counts them: 0 with the source in front."""
    path = projections.trajectory
    ray = path.ray_direction if path.source_mm is None else -path.source_mm
    if ray is None:
        return np.zeros(path.views)
    angles: npt.NDArray[np.float64] = np.degrees(np.unwrap(np.arctan2(-ray[:, 0], ray[:, 1])))
    return angles


def arc_deg(angles_deg: npt.NDArray[np.float64]) -> float:
    """How far the views turn, the last one's own step included."""
    steps = np.abs(np.diff(angles_deg))
    if len(steps) == 0:
        return 0.0
    return float(np.ptp(angles_deg) + np.median(steps))


def edge_distances_mm(projections: Projections) -> npt.NDArray[np.float64]:
    """Distance from the axis of rotation of the rays to the first and the last column: [views looked at, 2]."""
    path, detector = projections.trajectory, projections.detector
    views = np.unique(np.linspace(0, path.views - 1, min(path.views, _VIEWS_LOOKED_AT)).astype(int))
    distances = []
    for view in views:
        edges = projections.elements_mm(int(view))[detector.rows // 2][[0, -1], :2]
        if path.source_mm is not None:
            ray = edges - path.source_mm[view, :2]
        else:
            ray = np.broadcast_to(np.asarray(path.ray_direction)[view, :2], edges.shape)
        distances.append((edges[:, 0] * ray[:, 1] - edges[:, 1] * ray[:, 0]) / np.linalg.norm(ray, axis=1))
    return np.abs(np.array(distances))


def field_of_view_radius_mm(projections: Projections) -> float:
    """Radius of the disc every point of which is seen from all sides: over a full turn the farther edge counts."""
    per_edge = edge_distances_mm(projections).mean(axis=0)
    whole_turn = arc_deg(view_angles_deg(projections)[_first_position(projections)]) >= _FULL_TURN_DEG
    return float(per_edge.max() if whole_turn else per_edge.min())


def _detector(projections: Projections) -> dict[str, Any]:
    detector = projections.detector
    return {
        "shape": detector.shape,
        "columns": detector.columns,
        "rows": detector.rows,
        "column_pitch_mm": _rounded(detector.column_pitch_mm),
        "row_pitch_mm": _rounded(detector.row_pitch_mm),
        "focal_radius_mm": _rounded(detector.focal_radius_mm),
        "offset_columns": _rounded((detector.columns - 1) / 2 - detector.central_element[0]),
    }


def _first_position(projections: Projections) -> npt.NDArray[np.bool_]:
    """Which views were taken before the table moved on; all, where it moves evenly or not at all."""
    height = np.round(projections.trajectory.det_center_mm[:, 2] / _SAME_HEIGHT_MM)
    same: npt.NDArray[np.bool_] = height == height[0]
    return same if len(np.unique(height)) <= len(height) / 4 else np.ones_like(same)


def _geometry(projections: Projections) -> dict[str, Any]:
    path = projections.trajectory
    source = path.source_mm
    first = _first_position(projections)
    angles = view_angles_deg(projections)[first]
    arc, steps = arc_deg(angles), np.diff(angles)
    found: dict[str, Any] = {
        "source_to_isocentre_mm": None,
        "source_to_detector_mm": None,
        "arc_deg": _rounded(arc),
        "step_deg": None if len(steps) == 0 else _rounded(float(np.median(np.abs(steps)))),
        "cone_half_angle_deg": _rounded(projections.cone_half_angle_deg),
        "table_positions": None,
        "table_feed_mm_per_turn": None,
        "pitch": None,
        "z_mm": None,
    }
    if source is None:
        return found
    distance = float(np.median(np.hypot(source[:, 0], source[:, 1])))
    to_detector = float(np.median(np.linalg.norm(path.det_center_mm - source, axis=1)))
    z = source[:, 2] + projections.isocentre_mm[2]
    found |= {
        "source_to_isocentre_mm": _rounded(distance),
        "source_to_detector_mm": _rounded(to_detector),
        "z_mm": [_rounded(float(z.min())), _rounded(float(z.max()))],
    }
    if not first.all():
        heights = np.round(path.det_center_mm[:, 2] / _SAME_HEIGHT_MM)
        found["table_positions"] = len(np.unique(heights))
    elif len(steps) and float(np.ptp(path.det_center_mm[:, 2])) > projections.detector.row_pitch_mm:
        feed = abs(float(np.polyfit(angles, path.det_center_mm[:, 2], 1)[0])) * 360
        collimation = projections.detector.rows * projections.detector.row_pitch_mm * distance / to_detector
        found |= {"table_feed_mm_per_turn": _rounded(feed), "pitch": _rounded(feed / collimation)}
    return found


def _dose(projections: Projections) -> dict[str, Any]:
    """Photons behind the object follow from the weights: an inverse variance of a count is the count."""
    weights = projections.weights
    used = None if weights is None else weights[weights > 0]
    return {
        "photons_in_air": projections.i0,
        "electronic_sigma": projections.electronic_sigma,
        "median_weight": None if used is None or used.size == 0 else float(np.median(used)),
        "bad_elements": None if weights is None else int((weights == 0).sum()),
    }


def _missing(projections: Projections) -> list[str]:
    missing = []
    if projections.weights is None:
        missing.append("weights and photons in air")
    if projections.volume_hint is None:
        missing.append("the grid of the scanner's own reconstruction")
    return missing


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)
