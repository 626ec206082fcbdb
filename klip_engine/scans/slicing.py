"""From the views of a scanner to sinograms of axial slices that share one geometry."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from klip_engine.errors import InputError
from klip_engine.operators import ParallelGeometry, ScanGeometry
from klip_engine.projections import Projections
from klip_engine.scans.measured import MeasuredSlices
from klip_engine.scans.rebinning import slice_rays
from klip_engine.scans.views import FanViews, check_axial, fan_views, one_sign
from klip_engine.scans.weighting import known_or_estimated_weights

SLICE_MM = 3.0
LEANING_RADIUS_MM = 150.0
"""How far from the axis it is asked by how much oblique rays leave their slice."""
_WIDEST_LEAN_MM = 1.5
_WIDEST_HELICAL_LEAN_MM = 8.0
_SAME_HEIGHT_MM = 0.02
_SAME_ANGLE_RAD = 1e-4
_LEAST_HELICAL_ROWS = 4
_LEAST_SEEN = 0.8
_VIEWS_TO_ASK = 360
"""In a turn: enough for a question about the geometry, whatever the scan has."""

WeightArray = npt.NDArray[np.float32]


def to_slices(
    projections: Projections, *, slice_mm: float = SLICE_MM, at_most: int | None = None, filled: bool = True
) -> MeasuredSlices:
    """Sinograms of axial slices: a row or turn of its own each, or rebinned from a helix, `slice_mm` apart and
    thick.

    Parallel beams: every detector row is a slice. Fans at one or several table positions: every row of every
    position is a slice, where the rows leave it by less than 1.5 mm at 150 mm from the axis. Helices: single-slice
    rebinning (`rebinning`); the rays lean by up to half the detector's height at the axis times 150 mm over the
    source's distance, 8 mm at most; slices that no full turn reaches are left out.
    at_most: only so many of the slices, evenly chosen, for a look at the scan; filled: what a helix saw from one
    side only is taken from the other, which makes opposite rays agree: `consistency` asks slices without, which
    are thin and of few views.
    Raises InputError for cone beams, scans not along the patient's length and anything that does not fit together.
    """
    weights, notices = known_or_estimated_weights(projections)
    if projections.beam == "parallel":
        slices = _parallel(projections, weights, at_most)
    else:
        views = fan_views(projections, weights)
        heights = np.unique(np.round(views.detector_z / _SAME_HEIGHT_MM)) * _SAME_HEIGHT_MM
        moving = len(heights) > len(views) / 4 and len(views) > 4
        if moving:
            slices = _helical(projections, views, slice_mm, at_most, filled)
        else:
            slices = _at_rest(projections, views, at_most)
    return replace(slices, notices=(*notices, *slices.notices))


def _few(count: int, at_most: int | None) -> list[int]:
    """The numbers of the slices to make, of `count` in all."""
    if at_most is None or count <= at_most:
        return list(range(count))
    return [int((i + 0.5) * count / at_most) for i in range(at_most)]


def _parallel(projections: Projections, weights: WeightArray, at_most: int | None) -> MeasuredSlices:
    """Each row of a stack of parallel projections."""
    trajectory, detector = projections.trajectory, projections.detector
    ray = trajectory.ray_direction
    if ray is None:
        raise InputError("the projections are of a parallel beam, but do not say in which direction its rays ran")
    check_axial(trajectory.det_u, trajectory.det_v)
    angle = np.arctan2(-ray[:, 0], ray[:, 1])
    if float(np.abs(ray[:, 2]).max()) > 0.005:
        raise InputError("the rays of the parallel beam do not run in axial planes (across LPS z)")
    axis = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    across = (trajectory.det_u[:, :2] * axis).sum(axis=1)
    centre = (trajectory.det_center_mm[:, :2] * axis).sum(axis=1)
    if np.ptp(np.abs(across)) > 1e-3 or np.ptp(trajectory.det_center_mm[:, 2]) > _SAME_HEIGHT_MM:
        raise InputError("the views of the parallel beam differ in pitch or height; each must see the same slices")
    column, row = detector.central_element
    data = projections.line_integrals
    if one_sign(across, "columns"):
        data, weights, column = data[..., ::-1], weights[..., ::-1], detector.columns - 1 - column
    if one_sign(trajectory.det_v[:, 2], "rows"):
        data, weights, row = data[:, ::-1], weights[:, ::-1], detector.rows - 1 - row
    pitch = detector.column_pitch_mm * float(np.abs(across).mean())
    if np.ptp(centre) > 0.02 * pitch:
        raise InputError("the detector of the parallel beam shifts from view to view, which is not supported")
    geometry = ParallelGeometry(
        view_angles_rad=tuple(angle.tolist()),
        detector_count=detector.columns,
        detector_pitch_mm=pitch,
        detector_offset_bins=(detector.columns - 1) / 2 - column + float(centre.mean()) / pitch,
        image_shape=(1, 1),
        pixel_spacing_mm=1.0,
    )
    rows = np.array(_few(detector.rows, at_most))
    heights = trajectory.det_center_mm[:, 2].mean() + (rows - row) * detector.row_pitch_mm
    return _measured(projections, geometry, heights, data[:, rows].swapaxes(0, 1), weights[:, rows].swapaxes(0, 1))


def _at_rest(projections: Projections, views: FanViews, at_most: int | None) -> MeasuredSlices:
    """Every detector row at every table position."""
    positions = np.round(views.detector_z / _SAME_HEIGHT_MM)
    groups = [views.subset(np.flatnonzero(positions == position)) for position in np.unique(positions)]
    lean = _lean_mm(views)
    if lean > _WIDEST_LEAN_MM:
        raise InputError(
            f"this is a cone beam: {LEANING_RADIUS_MM:.0f} mm from the axis its outer rows lie {lean:.1f} mm from "
            "the slice they belong to. Reconstruct the projections first (FDK, for example with RTK) and give the "
            "volume"
        )
    geometry = _common_geometry(groups)
    heights, data, weights = [], [], []
    rows = views.line_integrals.shape[1]
    chosen = set(_few(len(groups) * rows, at_most))
    for number, group in enumerate(groups):
        as_they_are = group.alike and _same_angles(group.angle, geometry)
        ringed = group if as_they_are else _ring(group)
        for row in range(rows):
            if number * rows + row not in chosen:
                continue
            height = _row_height(group, row)
            heights.append(height)
            if as_they_are:
                data.append(group.line_integrals[:, row])
                weights.append(group.weights[:, row])
            else:
                rays = slice_rays(ringed, geometry, height)
                data.append(rays.value.astype(np.float32))
                weights.append(np.where(rays.seen > 0, rays.weight, 0).astype(np.float32))
    return _measured(projections, geometry, np.array(heights), np.stack(data), np.stack(weights))


def _common_geometry(groups: list[FanViews]) -> ScanGeometry:
    """That of the first group; raises InputError where another one lacks its angles."""
    first = groups[0]
    geometry = first.geometry(tuple(first.angle.tolist()))
    for group in groups[1:]:
        if not (_same_angles(group.angle, geometry) or (_is_full_turn(group.angle) and _is_full_turn(first.angle))):
            raise InputError(
                "the table positions of this scan were not measured at the same angles; give them one by one"
            )
    return geometry


def _same_angles(angle: npt.NDArray[np.float64], geometry: ScanGeometry) -> bool:
    wanted = np.array(geometry.view_angles_rad)
    if len(angle) != len(wanted):
        return False
    return bool(np.abs(np.remainder(angle - wanted + math.pi, 2 * math.pi) - math.pi).max() < _SAME_ANGLE_RAD)


def _is_full_turn(angle: npt.NDArray[np.float64]) -> bool:
    ordered = np.sort(np.mod(angle, 2 * math.pi))
    gaps = np.diff(ordered, append=ordered[0] + 2 * math.pi)
    return bool(gaps.max() < 3 * np.median(gaps[gaps > 1e-9]))


def _ring(views: FanViews) -> FanViews:
    """The views of a turn by angle, the first once more at the end, so that there is something between all."""
    order = np.argsort(np.mod(views.angle, 2 * math.pi), kind="stable")
    closed = views.subset(np.append(order, order[0]) if _is_full_turn(views.angle) else order)
    return replace(closed, angle=np.unwrap(closed.angle))


def _row_height(views: FanViews, row: int) -> float:
    """Height at which a row crosses the axis, mm from the isocentre."""
    distance = views.distance_of(np.arange(len(views)), np.zeros(len(views)))
    on_detector = views.detector_z + (row - views.central_row) * views.row_pitch_mm
    at_axis = views.source_z + (on_detector - views.source_z) * views.radius / distance
    return float(at_axis.mean())


def _lean_mm(views: FanViews) -> float:
    """By how much the outermost rows leave their slice, `LEANING_RADIUS_MM` from the axis."""
    rows = views.line_integrals.shape[1]
    farthest = max(
        abs(_row_height(views.subset(slice(0, 1)), row) - float(views.source_z[0])) for row in (0, rows - 1)
    )
    return farthest * LEANING_RADIUS_MM / float(views.radius.mean())


def _helical(
    projections: Projections, views: FanViews, slice_mm: float, at_most: int | None, filled: bool
) -> MeasuredSlices:
    """Slices `slice_mm` apart, each the mean of the sinograms of heights a detector row apart."""
    rows = views.line_integrals.shape[1]
    table = np.diff(views.detector_z)
    if table.min() < -_SAME_HEIGHT_MM and table.max() > _SAME_HEIGHT_MM:
        raise InputError(
            "the table moves forth and back in this scan, or its views are out of order; give one pass"
        )
    if rows < _LEAST_HELICAL_ROWS:
        raise InputError(
            f"this is a helical scan with {rows} detector row{'s' if rows > 1 else ''}, too few to rebin; "
            "reconstruct the projections first and give the volume"
        )
    lean = _lean_mm(views)
    if lean > _WIDEST_HELICAL_LEAN_MM:
        raise InputError(
            f"the cone of this helical scan is too wide to rebin: {LEANING_RADIUS_MM:.0f} mm from the axis its "
            f"rays lie up to {lean:.1f} mm from their slice. Reconstruct the projections first and give the volume"
        )
    step = float(np.median(np.diff(views.angle)))
    per_turn = round(2 * math.pi / step)
    if not filled:
        per_turn = min(per_turn, _VIEWS_TO_ASK)
    geometry = views.geometry(tuple(float(views.angle[0]) + i * 2 * math.pi / per_turn for i in range(per_turn)))
    row_mm = views.row_pitch_mm * float(views.radius.mean() / views.distance_of(np.array([0]), np.zeros(1))[0])
    thick = max(1, round(slice_mm / row_mm)) if filled else 1
    ends = np.sort(views.detector_z[[0, -1]])
    centres = np.arange(ends[0] + slice_mm / 2, ends[1], slice_mm)
    heights, data, weights = [], [], []
    for centre in centres[_few(len(centres), at_most)]:
        between = (np.arange(thick) - (thick - 1) / 2) * slice_mm / thick
        sinogram = _mean_rays(views, geometry, centre + between, filled)
        if sinogram is not None:
            heights.append(float(centre))
            data.append(sinogram[0])
            weights.append(sinogram[1])
    if not heights:
        raise InputError(
            "no slice of this helical scan was measured over a full turn: it is too short, or its pitch too great"
        )
    slices = _measured(projections, geometry, np.array(heights), np.stack(data), np.stack(weights))
    many = f"{len(heights)} slices" if at_most is None else "slices"
    notice = (
        f"The helical scan was rebinned to {many} {slice_mm:g} mm apart; {LEANING_RADIUS_MM:.0f} mm "
        f"from the axis their rays lean by up to {lean:.1f} mm."
    )
    return replace(slices, notices=(notice,))


def _mean_rays(
    views: FanViews, geometry: ScanGeometry, heights: npt.NDArray[np.float64], filled: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
    """Mean sinogram and weights of neighbouring heights; None where a view misses more than a fifth of its rays, or
    not filled where there are none."""
    values, variances, measured = [], [], []
    for height in heights:
        rays = slice_rays(views, geometry, float(height), filled=filled)
        seen = (rays.seen > 0) & (rays.weight > 0)
        if seen.mean(axis=1).min() < _LEAST_SEEN if filled else not seen.any():
            return None
        measured.append(seen)
        values.append(rays.value)
        variances.append(1 / np.where(seen, rays.weight, 1))
    everywhere = np.all(measured, axis=0)
    weights = np.where(everywhere, len(heights) ** 2 / np.sum(variances, axis=0), 0)
    return np.mean(values, axis=0).astype(np.float32), weights.astype(np.float32)


def _measured(
    projections: Projections,
    geometry: ScanGeometry,
    heights: npt.NDArray[np.float64],
    data: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
) -> MeasuredSlices:
    """The slices in the patient, from the feet up."""
    x, y, z = projections.isocentre_mm
    order = np.argsort(heights, kind="stable")
    if len(order) > 1 and float(np.diff(heights[order]).min()) < _SAME_HEIGHT_MM:
        raise InputError("two slices of this scan lie at the same height; give one pass over the patient")
    weights = np.ascontiguousarray(weights[order], dtype=np.float32)
    return MeasuredSlices(
        geometry,
        np.where(weights > 0, data[order], 0).astype(np.float32),
        weights,
        tuple((z + heights[order]).tolist()),
        (x, y),
        projections.mu_water_per_mm,
        projections.volume_hint,
    )
