"""Sources and detectors on a circle, for formats that give angles and distances; angles as `operators/geometry.py`.

At angle b the detector's columns run along u = (cos b, sin b, 0) and the central ray along d = (-sin b, cos b, 0),
x to the patient's left and y to the back: at angle 0 a fan's source is in front. Rows run along (0, 0, 1).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from klip_engine.projections import Trajectory, Vectors


def fan_circle(
    angles_rad: npt.NDArray[np.float64], source_to_isocentre_mm: float, source_to_detector_mm: float
) -> Trajectory:
    """Fan or cone beam with the detector's middle opposite the source."""
    u, v, d = _axes(angles_rad)
    center = (source_to_detector_mm - source_to_isocentre_mm) * d
    return Trajectory(center, u, v, source_mm=-source_to_isocentre_mm * d)


def parallel_circle(angles_rad: npt.NDArray[np.float64]) -> Trajectory:
    """Parallel beam; the detector is put through the isocentre."""
    u, v, d = _axes(angles_rad)
    return Trajectory(np.zeros_like(d), u, v, ray_direction=d)


def _axes(angles_rad: npt.NDArray[np.float64]) -> tuple[Vectors, Vectors, Vectors]:
    cos, sin, zero = np.cos(angles_rad), np.sin(angles_rad), np.zeros_like(angles_rad)
    u = np.stack([cos, sin, zero], axis=1)
    d = np.stack([-sin, cos, zero], axis=1)
    return u, np.broadcast_to([0.0, 0.0, 1.0], u.shape).copy(), d
