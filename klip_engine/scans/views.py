"""The views of a scan in the plane of a slice: angle, radius and height of each, and which ray an element
measures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from klip_engine.errors import InputError
from klip_engine.operators import FanCurvedGeometry, FanFlatGeometry, ScanGeometry
from klip_engine.projections import Projections

Numbers = npt.NDArray[np.float64]

_TILT_TOLERANCE = 0.005
"""Sine of the angle by which detector or rays may lean out of the axial plane."""
_RADIUS_TOLERANCE = 0.03
"""Share by which the source's distance from the axis may vary: flying focal spots stay well below."""


@dataclass(frozen=True)
class FanViews:
    """Views of a fan or of the fans of a cone, in the axes of `klip_engine.operators.geometry`.

    Arrays are [views]. angle: radians, unwrapped, ascending; radius: source to axis, mm; source_z, detector_z: mm
    from the isocentre, the latter of element row `central_row`. In the plane, with axes (u, d) of the view and the
    source at the origin, detector_at [views, 2] is the central element and along [views, 2] the unit vector of its
    columns. line_integrals, weights: [view, row, column], columns along u and rows along +z.
    """

    angle: Numbers
    radius: Numbers
    source_z: Numbers
    detector_z: Numbers
    detector_at: Numbers
    along: Numbers
    central_column: float
    central_row: float
    column_pitch_mm: float
    row_pitch_mm: float
    focal_radius_mm: float | None
    line_integrals: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.angle)

    def subset(self, views: slice | npt.NDArray[np.int64]) -> FanViews:
        """Some of the views, in that order."""
        arrays = ("angle", "radius", "source_z", "detector_z", "detector_at", "along", "line_integrals", "weights")
        return replace(self, **{name: getattr(self, name)[views] for name in arrays})

    def columns_of(self, view: npt.NDArray[np.int64], fan_angle: Numbers) -> Numbers:
        """Fractional column that measures a fan angle (radians from the central ray towards u) in a view."""
        across, ahead = self.detector_at[view, 0], self.detector_at[view, 1]
        if self.focal_radius_mm is not None:
            shift = fan_angle - np.arctan2(across, ahead)
            return self.central_column + shift * self.focal_radius_mm / self.column_pitch_mm
        return self.central_column + self._on_flat(view, fan_angle) / self.column_pitch_mm

    def distance_of(self, view: npt.NDArray[np.int64], fan_angle: Numbers) -> Numbers:
        """From the source to the detector along a fan angle, in the plane, mm."""
        if self.focal_radius_mm is not None:
            return np.full(np.broadcast(view, fan_angle).shape, self.focal_radius_mm)
        ahead = self.detector_at[view, 1] + self._on_flat(view, fan_angle) * self.along[view, 1]
        return ahead / np.cos(fan_angle)

    def geometry(self, angles_rad: tuple[float, ...]) -> ScanGeometry:
        """The scan these views are of, or with a flying focal spot vary about, at the given angles."""
        nothing = np.zeros(len(self))
        column = float(self.columns_of(np.arange(len(self)), nothing).mean())
        count = self.line_integrals.shape[2]
        kind = FanFlatGeometry if self.focal_radius_mm is None else FanCurvedGeometry
        return kind(
            view_angles_rad=angles_rad,
            detector_count=count,
            detector_pitch_mm=self.column_pitch_mm,
            detector_offset_bins=(count - 1) / 2 - column,
            image_shape=(1, 1),
            pixel_spacing_mm=1.0,
            source_to_isocentre_mm=float(self.radius.mean()),
            source_to_detector_mm=float(self.detector_at[:, 1].mean())
            if self.focal_radius_mm is None
            else self.focal_radius_mm,
        )

    @property
    def alike(self) -> bool:
        """True where every view is the first one turned: no flying focal spot, no tilted flat detector."""
        centres = self.columns_of(np.arange(len(self)), np.zeros(len(self)))
        tilt = 0.0 if self.focal_radius_mm is not None else float(np.abs(self.along[:, 1]).max())
        return bool(np.ptp(self.radius) < 1e-4 * self.radius[0] and np.ptp(centres) < 0.02 and tilt < 1e-4)

    def _on_flat(self, view: npt.NDArray[np.int64], fan_angle: Numbers) -> Numbers:
        """Where a ray meets a flat detector: mm along its columns from the central element."""
        sin, cos = np.sin(fan_angle), np.cos(fan_angle)
        across, ahead = self.detector_at[view, 0], self.detector_at[view, 1]
        return (ahead * sin - across * cos) / (self.along[view, 0] * cos - self.along[view, 1] * sin)


def fan_views(projections: Projections, weights: npt.NDArray[np.float32]) -> FanViews:
    """The views of fan or cone beam projections by ascending angle.

    Raises InputError where the rotation axis is not LPS z, the source does not circle it, or columns run along z.
    """
    trajectory, detector = projections.trajectory, projections.detector
    source, centre = trajectory.source_mm, trajectory.det_center_mm
    if source is None:
        raise InputError(f"the projections are of a {projections.beam} beam, but do not say where the source was")
    check_axial(trajectory.det_u, trajectory.det_v)
    radius = np.hypot(source[:, 0], source[:, 1])
    if radius.min() <= 0 or np.ptp(radius) > _RADIUS_TOLERANCE * radius.mean():
        raise InputError(
            "the source does not circle the axis through the isocentre along the patient's length: its distance "
            f"varies from {radius.min():.1f} to {radius.max():.1f} mm; give the isocentre of the rotation"
        )
    angle = np.arctan2(source[:, 0], -source[:, 1])
    u = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    d = np.stack([-np.sin(angle), np.cos(angle)], axis=1)
    reach = centre[:, :2] - source[:, :2]
    at = np.stack([(reach * u).sum(axis=1), (reach * d).sum(axis=1)], axis=1)
    along = np.stack([(trajectory.det_u[:, :2] * u).sum(axis=1), (trajectory.det_u[:, :2] * d).sum(axis=1)], axis=1)
    if at[:, 1].min() <= 0:
        raise InputError("the detector lies behind the source in some views; check source and detector positions")
    column, row = detector.central_element
    flip_columns = one_sign(along[:, 0], "columns")
    flip_rows = one_sign(trajectory.det_v[:, 2], "rows")
    arrays = [
        a[:, :: -1 if flip_rows else 1, :: -1 if flip_columns else 1] for a in (projections.line_integrals, weights)
    ]
    if detector.shape == "cylindrical" and detector.focal_radius_mm is None:
        raise InputError("the detector is cylindrical, but its focal radius is missing")
    views = FanViews(
        np.unwrap(angle),
        radius,
        source[:, 2].astype(np.float64),
        centre[:, 2].astype(np.float64),
        at,
        -along if flip_columns else along,
        detector.columns - 1 - column if flip_columns else column,
        detector.rows - 1 - row if flip_rows else row,
        detector.column_pitch_mm,
        detector.row_pitch_mm,
        detector.focal_radius_mm if detector.shape == "cylindrical" else None,
        arrays[0],
        arrays[1],
    )
    steps = np.diff(views.angle)
    if (steps >= 0).all():
        return views
    if (steps < 0).all():
        return views.subset(slice(None, None, -1))  # not copied: a helix may fill half the memory
    return views.subset(np.argsort(views.angle, kind="stable"))


def check_axial(det_u: Numbers, det_v: Numbers) -> None:
    """Raise InputError unless the columns run in the axial plane and the rows along LPS z."""
    lean = max(float(np.abs(det_u[:, 2]).max()), float(np.abs(det_v[:, :2]).max()))
    if lean > _TILT_TOLERANCE:
        raise InputError(
            f"the rotation axis is not the patient's length (LPS z): the detector leans by {lean:.2f} out of it; "
            "projections of a tilted gantry have to be reconstructed first, give the volume instead"
        )


def one_sign(components: Numbers, what: str) -> bool:
    """True where all are negative, False where all are positive; raises InputError where they change sign."""
    if components.min() < 0 < components.max():
        raise InputError(f"the detector's {what} change direction from view to view; check det_u and det_v")
    return bool(components.max() < 0)
