"""Refuses trajectories and detectors that describe no scan, and says what a sweep of views lacks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from klip_engine.errors import InputError
from klip_engine.projections import Detector, Trajectory, Vectors

_UNIT_TOLERANCE = 1e-3
_SAME_MM = 1e-6
_LARGEST_SIDE = 100_000
_PITCHES_MM = (1e-3, 1e3)
_FARTHEST_MM = 1e6
PLAUSIBLE_MU_WATER = (0.01, 0.05)
"""Per mm, at the energies of CT of patients."""


def check_detector(detector: Detector, name: str) -> None:
    """Raise InputError for pitches, sizes and centres that no detector has."""
    for what, value in (("column", detector.column_pitch_mm), ("row", detector.row_pitch_mm)):
        least, most = _PITCHES_MM
        if not least <= value <= most:
            raise InputError(f"{name} has a {what} pitch of {value:g} mm: it must be from {least:g} to {most:g}")
    if not (0 < detector.columns <= _LARGEST_SIDE and 0 < detector.rows <= _LARGEST_SIDE):
        raise InputError(f"{name} has a detector of {detector.columns} x {detector.rows} elements: that is none")
    if not np.isfinite(detector.central_element).all():
        raise InputError(f"{name} has a central element that is no number: it must be (column, row), from 0")
    if detector.shape == "flat":
        return
    radius = detector.focal_radius_mm
    if radius is None or not (np.isfinite(radius) and radius > 0):
        raise InputError(f"{name} has a cylindrical detector without a radius: focal_radius_mm must be above zero")
    central, last = detector.central_element[0], detector.columns - 1
    widest = max(abs(central), abs(last - central)) * detector.column_pitch_mm / radius
    if widest >= np.pi / 2:
        raise InputError(
            f"the detector of {name} reaches {np.degrees(widest):.0f} degrees from its middle, 90 or more: "
            "check column pitch, central element and radius"
        )


def check_mu_water(per_mm: float, name: str) -> float:
    """The attenuation of water, where it can be that; raises InputError where it has another unit."""
    least, most = PLAUSIBLE_MU_WATER
    if not least <= per_mm <= most:
        raise InputError(
            f"the attenuation of water in {name} is {per_mm:g} per mm, not between {least} and {most}: its unit is "
            "not known"
        )
    return per_mm


def check_trajectory(trajectory: Trajectory, name: str) -> tuple[str, ...]:
    """Raise InputError for positions and axes that describe no scan; views may come in any order.

    Returns sentences for the user: views taken twice from the same place.
    """
    directions = {"det_u": trajectory.det_u, "det_v": trajectory.det_v}
    if trajectory.ray_direction is not None:
        directions["ray_dir"] = trajectory.ray_direction
    positions = {"det_center_mm": trajectory.det_center_mm}
    if trajectory.source_mm is not None:
        positions["source_mm"] = trajectory.source_mm
    for what, vectors in {**directions, **positions}.items():
        _check_vectors(vectors, what, trajectory.views, name)
    for what, vectors in positions.items():
        if np.abs(vectors).max(initial=0) > _FARTHEST_MM:
            raise InputError(f"{what} of {name} lies more than a kilometre away: positions are in mm")
    for what, vectors in directions.items():
        lengths = np.linalg.norm(vectors, axis=1)
        if (np.abs(lengths - 1) > _UNIT_TOLERANCE).any():
            view = int(np.abs(lengths - 1).argmax())
            raise InputError(
                f"{what} of {name} must be unit vectors; at view {view} its length is {lengths[view]:g}"
            )
    if (np.abs((trajectory.det_u * trajectory.det_v).sum(axis=1)) > _UNIT_TOLERANCE).any():
        raise InputError(f"det_u and det_v of {name} are not perpendicular: they must run along columns and rows")
    _check_rays_meet_detector(trajectory, name)
    return _repeated_views(trajectory, name)


def check_sweep(angles_rad: npt.NDArray[np.float64], name: str) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """Angles of a scan that turned one way, [views], made continuous, and a sentence about views that are missing.

    Raises InputError where an angle is no number, stands still or turns back: files out of order, two scans in
    one folder, or a broken encoder.
    """
    if not np.isfinite(angles_rad).all():
        raise InputError(f"{name} has view angles that are not numbers")
    turning: npt.NDArray[np.float64] = np.unwrap(angles_rad)
    steps = np.diff(turning)
    if len(steps) == 0:
        return turning, ()
    way = np.sign(np.median(steps))
    wrong = np.flatnonzero(steps * way <= 0)
    if way == 0 or len(wrong):
        view = int(wrong[0]) + 1 if len(wrong) else 1
        raise InputError(
            f"the view angles of {name} do not turn one way: view {view} stands at "
            f"{np.degrees(angles_rad[view]):.2f} degrees after {np.degrees(angles_rad[view - 1]):.2f}; views are "
            "out of order, or two scans are mixed"
        )
    usual = np.median(np.abs(steps))
    gaps = np.rint(np.abs(steps) / usual).astype(int) - 1
    missing = int(gaps[gaps > 0].sum())
    if not missing:
        return turning, ()
    first = int(np.argmax(gaps > 0))
    verb = "1 view is" if missing == 1 else f"{missing} views are"
    return turning, (f"{verb} missing, the first after view {first} (from 0): the angles jump there",)


def _check_vectors(vectors: Vectors, what: str, views: int, name: str) -> None:
    if vectors.shape != (views, 3):
        raise InputError(f"{what} of {name} is {list(vectors.shape)}, but {views} views need [{views}, 3]")
    if not np.isfinite(vectors).all():
        raise InputError(f"{what} of {name} holds values that are not numbers")


def _check_rays_meet_detector(trajectory: Trajectory, name: str) -> None:
    normal = np.cross(trajectory.det_u, trajectory.det_v)
    if trajectory.source_mm is not None:
        ray = trajectory.det_center_mm - trajectory.source_mm
        ray = ray / np.maximum(np.linalg.norm(ray, axis=1, keepdims=True), _SAME_MM)
    elif trajectory.ray_direction is not None:
        ray = trajectory.ray_direction
    else:
        raise InputError(f"{name} says neither where the source was nor how the rays ran: there is no geometry")
    grazing = np.abs((normal * ray).sum(axis=1)) < 1e-2
    if grazing.any():
        raise InputError(
            f"at view {int(grazing.argmax())} of {name} the source lies in the plane of the detector: "
            "source_mm, det_center_mm, det_u and det_v contradict each other"
        )


def _repeated_views(trajectory: Trajectory, name: str) -> tuple[str, ...]:
    origin = trajectory.source_mm if trajectory.source_mm is not None else trajectory.ray_direction
    poses = np.hstack([trajectory.det_center_mm, trajectory.det_u, trajectory.det_v, np.asarray(origin)])
    still = np.abs(np.diff(poses, axis=0)).max(axis=1, initial=0) < _SAME_MM
    if still.any():
        view = int(still.argmax()) + 1
        raise InputError(
            f"views {view - 1} and {view} of {name} were taken from the same place: the angles stand still "
            "(a broken encoder, or repeated frames that must be averaged)"
        )
    repeats = len(poses) - len(np.unique(np.rint(poses / 1e-4), axis=0))
    noun = "view was" if repeats == 1 else "views were"
    return (f"{repeats} {noun} taken from a place of an earlier one",) if repeats else ()
