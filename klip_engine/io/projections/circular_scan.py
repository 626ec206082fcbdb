"""A scan as formats of angles and distances say it, found from free positions (`circular.py`: the way back).

Columns are counted along u = (cos b, sin b, 0), rows along (0, 0, 1), and the central element lies on the ray from
the focal centre through the axis of rotation, which the other way of counting and the moved centre do not change.
The focal centre is the axis of a cylindrical detector, for a flat one the middle of where the focal spot stood; the
focal spot is given by how far it is from there (a flying focal spot).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from klip_engine.errors import UsageError
from klip_engine.projections import Projections, Vectors
from klip_engine.volume import FloatArray

SAME_MM = 1e-3
"""What is nearer is the same place: files that keep 32 bits are off by up to 0.0003 mm."""
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CircularScan:
    """line_integrals, weights [view, row, column]; central_element (column, row), from 0; per view: angles_rad (b,
    continuous), radius_mm of the focal centre, distance_mm from there to the central element, z_mm of its row, and
    the shift of the focal spot, spot_rad, spot_z_mm and spot_radius_mm. Parallel beams have no radius: 0."""

    line_integrals: FloatArray
    weights: FloatArray | None
    central_element: tuple[float, float]
    angles_rad: Values
    z_mm: Values
    radius_mm: Values
    distance_mm: Values
    spot_rad: Values
    spot_z_mm: Values
    spot_radius_mm: Values

    @property
    def spot_flies(self) -> bool:
        """Whether the focal spot leaves the focal centre."""
        shifts = (self.spot_rad * self.radius_mm, self.spot_z_mm, self.spot_radius_mm)
        return any(np.abs(shift).max() > SAME_MM for shift in shifts)


def circular_scan(projections: Projections, format_name: str) -> CircularScan:
    """Take a scan as a turn about z.

    Raises UsageError, naming the format and one that can hold the scan, where the detector is tilted, where rays of
    a parallel beam do not meet it squarely, and where it stands differently from view to view.
    """
    path, detector = projections.trajectory, projections.detector
    head = _one_sign(path.det_v[:, 2], np.hypot(path.det_v[:, 0], path.det_v[:, 1]), format_name)
    outward = np.array([path.outward(view) for view in range(path.views)])
    side = _one_sign(
        path.det_u[:, 0] * outward[:, 1] - path.det_u[:, 1] * outward[:, 0], outward[:, 2], format_name
    )
    u, (column, row) = path.det_u * side, detector.central_element
    column = column if side > 0 else detector.columns - 1 - column
    row = row if head > 0 else detector.rows - 1 - row
    if path.source_mm is None:
        _check_square(path.ray_direction, outward, format_name)
    center = path.det_center_mm
    if detector.shape == "cylindrical":
        ring = float(detector.focal_radius_mm or 0.0)
        axis = center - ring * outward
        radius = np.hypot(axis[:, 0], axis[:, 1])
        inward = -axis[:, :2] / np.where(radius > 0, radius, 1)[:, None]
        moved = ring * np.arctan2((inward * u[:, :2]).sum(1), (inward * outward[:, :2]).sum(1))
        distance = np.full(path.views, ring)
    else:
        inward, moved = outward[:, :2], -(center * u)[:, :2].sum(1)
        behind = 0.0 if path.source_mm is None else float(np.median(-(path.source_mm * outward)[:, :2].sum(1)))
        radius = np.full(path.views, behind)
        distance = (center * outward)[:, :2].sum(1) + behind
    if np.ptp(moved) > 2 * SAME_MM:
        raise cannot_hold(format_name, "the detector moves along its columns from view to view")
    angles = np.unwrap(np.arctan2(-inward[:, 0], inward[:, 1]))
    spot = _spot(path.source_mm, angles, radius, center[:, 2])
    turned = (slice(None), slice(None, None, int(head)), slice(None, None, int(side)))
    return CircularScan(
        line_integrals=projections.line_integrals[turned],
        weights=None if projections.weights is None else projections.weights[turned],
        central_element=(float(column + moved.mean() / detector.column_pitch_mm), float(row)),
        angles_rad=angles,
        z_mm=center[:, 2],
        radius_mm=radius,
        distance_mm=distance,
        spot_rad=spot[0],
        spot_z_mm=spot[1],
        spot_radius_mm=spot[2],
    )


def cannot_hold(format_name: str, why: str) -> UsageError:
    """The sentence for a scan that a format has no words for."""
    return UsageError(
        f"{format_name} cannot hold this scan: {why}; write klip-projections (a name that ends in .h5)"
    )


def _one_sign(component: Values, remainder: Values, format_name: str) -> float:
    """+1 or -1: which way an axis runs at every view; it must have no other component."""
    if np.abs(remainder).max() > 1e-6 or np.abs(component).min() < 0.5 or np.ptp(np.sign(component)) > 0:
        raise cannot_hold(format_name, "its detector is tilted, or turns its axes from view to view")
    return float(np.sign(component[0]))


def _check_square(rays: Vectors | None, outward: Vectors, format_name: str) -> None:
    if rays is None or np.abs(rays - outward).max() > 1e-6:
        raise cannot_hold(format_name, "its parallel rays do not meet the detector at right angles")


def _spot(source: Vectors | None, angles: Values, radius: Values, z: Values) -> tuple[Values, Values, Values]:
    """The focal spot's shift from the focal centre: angle, z, radius."""
    if source is None:
        zero = np.zeros_like(angles)
        return zero, zero, zero
    turned = np.arctan2(source[:, 0], -source[:, 1]) - angles
    return np.angle(np.exp(1j * turned)), source[:, 2] - z, np.hypot(source[:, 0], source[:, 1]) - radius
