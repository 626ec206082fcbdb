"""Do the projections agree with their own geometry? Asked before an hour is spent on them.

A line measured from both sides must give the same value: ray (b, gamma) of a fan is ray (b + pi - 2 gamma, -gamma),
ray (b, t) of parallel beams is ray (b + pi, -t). Where parallel beams cover only half a turn, the Helgason-Ludwig
conditions are asked instead (Natterer, "The Mathematics of Computerized Tomography", 1986, section II.4): the mass
of every view is the same, and the centre of mass moves as a cosine of the view angle.

What no such test can see: parallel beams with a mirrored detector, or a fan with detector and rotation both
reversed, are perfect scans of a mirrored patient.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from klip_engine.operators import FanCurvedGeometry, FanFlatGeometry, FanGeometry, ScanGeometry
from klip_engine.scans.measured import MeasuredSlices

Numbers = npt.NDArray[np.float64]

_SLICES = 6
_VIEWS = 180
_BINS = 160
_SHIFTS = np.arange(-12, 13) / 2
"""Shifts of the detector that are tried, in coarse bins."""
_BETTER = 0.6
"""Another geometry is named where it leaves less than this share of the squared disagreement."""
_LEAST_SHIFT_MM = 0.5
_UNRELATED = 0.3
"""Squared disagreement of opposite rays, over that of rays a quarter turn apart, that no usable scan has."""
_ABOVE_NOISE = 6.0
_LEAST_PAIRS = 500
_LARGEST_WOBBLE_MM = 1.5
_LARGEST_MASS_CHANGE = 0.05


def consistency(slices: MeasuredSlices) -> tuple[str, ...]:
    """Sentences that say what does not fit; none where nothing was found, or where nothing can be asked (truncated
    half turns)."""
    coarse = _coarse(slices)
    if _opposite(coarse).pairs >= _LEAST_PAIRS:
        return _opposite_rays(coarse)
    if isinstance(coarse.geometry, FanGeometry) or _is_truncated(coarse):
        return ()
    return _moments(coarse)


def _coarse(slices: MeasuredSlices) -> MeasuredSlices:
    """A few slices, with neighbouring bins averaged: what is asked are large things, and noise is not one."""
    chosen = np.unique(np.linspace(0, len(slices) - 1, min(_SLICES, len(slices))).round().astype(int))
    few = slices.averaged([(int(i), int(i) + 1) for i in chosen])
    return few.coarser(max(1, slices.geometry.detector_count // _BINS))


class _Disagreement:
    """Mean squares over pairs of rays: of their difference, and of what noise alone would make it."""

    def __init__(self, difference: Numbers, noise: Numbers) -> None:
        self.pairs = len(difference)
        self.squared = float(np.mean(difference**2)) if self.pairs else math.inf
        self.noise = float(np.mean(noise)) if self.pairs else 0.0


def _opposite_rays(slices: MeasuredSlices) -> tuple[str, ...]:
    as_given = _opposite(slices)
    unrelated = _opposite(slices, quarter=True)
    if as_given.squared < 2 * as_given.noise:
        return ()
    found = []
    if isinstance(slices.geometry, FanGeometry):
        mirrored = min((_opposite(slices, sign=-1, shift=shift) for shift in _SHIFTS), key=lambda one: one.squared)
    best = min(_SHIFTS, key=lambda shift: _opposite(slices, shift=shift).squared)
    shifted = _opposite(slices, shift=best)
    pitch = slices.geometry.detector_pitch_mm / slices.geometry.magnification
    if isinstance(slices.geometry, FanGeometry) and mirrored.squared < _BETTER * min(
        shifted.squared, as_given.squared
    ):
        found.append(
            "The projections fit a mirrored detector better than the one described: its columns are counted the "
            "wrong way round, or the source turns the other way."
        )
    elif abs(best) * pitch > _LEAST_SHIFT_MM and shifted.squared < _BETTER * as_given.squared:
        found.append(
            f"The projections fit a detector shifted by about {best * pitch:+.1f} mm (at the axis) better than the "
            "one described: its central element, or the axis of rotation, is wrong."
        )
    elif as_given.squared > _UNRELATED * unrelated.squared and as_given.squared > _ABOVE_NOISE * as_given.noise:
        found.append(
            "The same lines measured from opposite sides disagree as if they had nothing to do with each other: "
            "the view angles are wrong or out of order."
        )
    return tuple(found)


def _opposite(slices: MeasuredSlices, *, sign: int = 1, shift: float = 0.0, quarter: bool = False) -> _Disagreement:
    """Over all rays that were measured from both sides, if the detector were mirrored (sign -1) or shifted by so
    many bins; quarter: a quarter turn beside that, for comparison."""
    geometry = slices.geometry
    described = geometry.detector_positions_mm().numpy()
    fan = _fan_angle(geometry, sign * (described + shift * geometry.detector_pitch_mm))
    angle = np.array(geometry.view_angles_rad)
    some = np.unique(np.linspace(0, len(angle) - 1, min(_VIEWS, len(angle))).round().astype(int))
    there = angle[some, None] + math.pi - 2 * fan + (math.pi / 2 if quarter else 0.0)
    view, distance = _nearest_view(angle, there)
    step = _usual_step(angle)
    # The bin at minus this one's true position, whether mirrored or not.
    column = -described / geometry.detector_pitch_mm - 2 * shift - geometry.detector_offset_bins
    column = np.broadcast_to(column + (geometry.detector_count - 1) / 2, view.shape)
    left = np.floor(column).astype(int)
    fits = (distance < 0.75 * step) & (left >= 0) & (left < geometry.detector_count - 1)
    left = np.clip(left, 0, geometry.detector_count - 2)
    part = column - left
    data, weights = slices.line_integrals.astype(np.float64), slices.weights
    differences, noises = [], []
    for one, weight in zip(data, weights, strict=True):
        opposite = (1 - part) * one[view, left] + part * one[view, left + 1]
        least = np.minimum(np.minimum(weight[view, left], weight[view, left + 1]), weight[some])
        used = fits & (least > 0)
        differences.append((one[some] - opposite)[used])
        noises.append(2 / least[used].astype(np.float64))
    return _Disagreement(np.concatenate(differences), np.concatenate(noises))


def _fan_angle(geometry: ScanGeometry, position: Numbers) -> Numbers:
    """Of positions on the detector, mm from the central ray; 0 in parallel beams."""
    if isinstance(geometry, FanFlatGeometry):
        return np.arctan(position / geometry.source_to_detector_mm)
    if isinstance(geometry, FanCurvedGeometry):
        return position / geometry.source_to_detector_mm
    return np.zeros_like(position)


def _nearest_view(angle: Numbers, wanted: Numbers) -> tuple[npt.NDArray[np.int64], Numbers]:
    """The view nearest to each angle modulo a turn, and how far away it is, radians."""
    turn = 2 * math.pi
    order = np.argsort(np.mod(angle, turn), kind="stable")
    ordered = np.mod(angle, turn)[order]
    around = np.concatenate([[ordered[-1] - turn], ordered, [ordered[0] + turn]])
    places = np.concatenate([[order[-1]], order, [order[0]]])
    after = np.clip(np.searchsorted(around, np.mod(wanted, turn)), 1, len(around) - 1)
    nearer = np.where(
        np.mod(wanted, turn) - around[after - 1] < around[after] - np.mod(wanted, turn), after - 1, after
    )
    return places[nearer], np.abs(np.mod(wanted, turn) - around[nearer])


def _usual_step(angle: Numbers) -> float:
    gaps = np.diff(np.sort(np.mod(angle, 2 * math.pi)))
    return float(np.median(gaps[gaps > 1e-9])) if (gaps > 1e-9).any() else 2 * math.pi


def _is_truncated(slices: MeasuredSlices) -> bool:
    """True where the outermost bins see more than a tenth of the densest ray."""
    data = slices.filled()
    ends = np.maximum(data[..., :2].mean(axis=-1), data[..., -2:].mean(axis=-1))
    return bool(np.quantile(ends, 0.95) > 0.1 * np.quantile(data, 0.999))


def _moments(slices: MeasuredSlices) -> tuple[str, ...]:
    """Mass and centre of mass of the views of parallel beams."""
    data = slices.filled().astype(np.float64)
    angle = np.array(slices.geometry.view_angles_rad)
    position = slices.geometry.detector_positions_mm().numpy()
    variance = np.where(slices.weights > 0, 1 / np.where(slices.weights > 0, slices.weights, 1), 0).astype(
        np.float64
    )
    mass = data.sum(axis=-1)
    if float(mass.min()) <= 0 or len(angle) < 12:
        return ()
    centre = (data * position).sum(axis=-1) / mass
    spread = np.sqrt((variance * (position - centre[..., None]) ** 2).sum(axis=-1)) / mass
    waves = np.stack([np.cos(angle), np.sin(angle), np.ones_like(angle)], axis=1)
    fitted = np.linalg.lstsq(waves, centre.T, rcond=None)[0]
    wobble = float(np.sqrt(np.mean((centre.T - waves @ fitted) ** 2)))
    noise = float(np.sqrt(np.mean(spread**2)))
    shift = float(np.median(fitted[2]))
    changes = mass.std(axis=1) / mass.mean(axis=1)
    found = []
    if wobble > _LARGEST_WOBBLE_MM + 3 * noise:
        found.append(
            f"The centre of mass of the projections does not move as that of one object would (by {wobble:.1f} mm)"
            ": the view angles are wrong or out of order, or the patient moved."
        )
    elif abs(shift) > _LEAST_SHIFT_MM + 3 * noise:
        found.append(
            f"The projections fit a detector shifted by about {-shift:+.1f} mm better than the one described: its "
            "central element, or the axis of rotation, is wrong."
        )
    mass_noise = float(np.sqrt(variance.sum(axis=-1)).mean() / mass.mean())
    if float(np.median(changes)) > _LARGEST_MASS_CHANGE + 3 * mass_noise:
        found.append(
            f"The mass of the object changes by {100 * float(np.median(changes)):.0f} % from view to view: the "
            "beam's intensity is not corrected, or the object is truncated."
        )
    return tuple(found)
