"""Lines that were measured from both sides, and which geometry makes them agree best.

Ray (b, gamma) of a fan is ray (b + pi - 2 gamma, -gamma), ray (b, t) of parallel beams is ray (b + pi, -t). Unlike
the Helgason-Ludwig conditions, and those on fans derived from them (Chen and Leng, Med. Phys. 32, 2005, 961-967;
Clackdoyle, IEEE Trans. Nucl. Sci. 60, 2013, 1560-1569), this also holds for truncated views.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from klip_engine.operators import FanCurvedGeometry, FanFlatGeometry, FanGeometry, ScanGeometry
from klip_engine.scans.measured import MeasuredSlices

Numbers = npt.NDArray[np.float64]

LEAST_PAIRS = 500
_VIEWS = 180
_SHIFTS = np.arange(-12, 13) / 2
"""Shifts of the detector that are tried, in coarse bins."""
_NEAR = math.radians(1.0)
"""Opposite views nearer than this are compared, where there are enough of them: with few views, others differ."""
_BETTER = 0.6
"""Another geometry is named where it leaves less than this share of the squared disagreement."""
_MUCH_BETTER = 0.2
_LEAST_SHIFT_MM = 0.5
_LEAST_CONTRAST = 0.01
"""Of the mean square of all rays: what rays a quarter turn apart are taken to differ by at least. A cylinder about
the axis hardly differs, and what little does is the steps of bins."""
_DOUBTFUL = 0.1
_DECISIVE = 0.15
"""Squared disagreement of opposite rays, over that of rays a quarter turn apart."""
_LEAST_MIRRORED = 0.03
_ABOVE_NOISE = 6.0

_MIRRORED = (
    "The projections fit a mirrored detector better than the one described: its columns are counted the wrong way "
    "round, or the source turns the other way."
)
_SHIFTED = (
    "The projections fit a detector shifted by about {:+.1f} mm (at the axis) better than the one described: its "
    "central element, or the axis of rotation, is wrong."
)
_UNRELATED = (
    "The same lines measured from opposite sides disagree as if they had nothing to do with each other: the view "
    "angles are wrong or out of order, or the detector's central element is far off."
)


def opposite_rays(slices: MeasuredSlices) -> OppositeRays:
    """The pairs of opposite rays of slices with a few hundred bins at most."""
    return OppositeRays(slices)


class _Disagreement:
    """Mean squares over pairs of rays: of their difference, of what noise alone would make it, and of the rays."""

    def __init__(self, difference: Numbers, noise: Numbers, value: Numbers) -> None:
        self.pairs = len(difference)
        self.squared = float(np.mean(difference**2)) if self.pairs else math.inf
        self.noise = float(np.mean(noise)) if self.pairs else 0.0
        self.power = float(np.mean(value**2)) if self.pairs else 0.0
        self.beyond_noise = max(self.squared - self.noise, 0.0)


class OppositeRays:
    """count: how many pairs there are."""

    def __init__(self, slices: MeasuredSlices) -> None:
        self._slices = slices
        angle = np.array(slices.geometry.view_angles_rad)
        self._reach = _NEAR
        self._as_given = self._compared()
        if self._as_given.pairs < LEAST_PAIRS:
            self._reach = max(_NEAR, 0.75 * _usual_step(angle))
            self._as_given = self._compared()
        self.count = self._as_given.pairs

    def disagreements(self) -> list[tuple[str, bool]]:
        """Sentences about what does not fit, the likeliest only, and whether it is decisive.

        Measured on seven phantoms (chest, centred and off-centre bodies, head, metal, a water cylinder, a small
        insert) in full, short, sparse, offset and truncated fans: the share of good scans stays below 0.04,
        that of mirrored ones above 0.06 of which a mirrored detector explains more than 90 %; shuffled angles
        come to 0.8 and more, names sorted as text (1, 10, 100, 2, ...) mostly to 0.2 and more.
        """
        given = self._as_given
        if given.squared < 2 * given.noise:
            return []
        unrelated = self._compared(quarter=True)
        share = given.beyond_noise / max(unrelated.beyond_noise, _LEAST_CONTRAST * given.power)
        loud = given.squared > _ABOVE_NOISE * given.noise
        best = min(_SHIFTS, key=lambda shift: self._compared(shift=shift).squared)
        shifted = self._compared(shift=best)
        mirrored = self._mirrored(_BETTER * min(shifted.squared, given.squared))
        if mirrored is not None:
            much_better = mirrored.beyond_noise < _MUCH_BETTER * given.beyond_noise
            return [(_MIRRORED, loud and much_better and share > _LEAST_MIRRORED)]
        geometry = self._slices.geometry
        shift_mm = best * geometry.detector_pitch_mm / geometry.magnification
        if abs(shift_mm) > _LEAST_SHIFT_MM and shifted.squared < _BETTER * given.squared:
            return [(_SHIFTED.format(shift_mm), False)]
        if loud and share > _DOUBTFUL:
            return [(_UNRELATED, share > _DECISIVE)]
        return []

    def _mirrored(self, least: float) -> _Disagreement | None:
        """With a mirrored detector, where that leaves less than `least`; parallel beams fit both ways."""
        if not isinstance(self._slices.geometry, FanGeometry):
            return None
        tried = [self._compared(sign=-1, shift=shift) for shift in _SHIFTS]
        best = min(tried, key=lambda one: one.squared)
        return best if best.squared < least and best.pairs >= LEAST_PAIRS / 2 else None

    def _compared(self, *, sign: int = 1, shift: float = 0.0, quarter: bool = False) -> _Disagreement:
        """Over all rays that were measured from both sides, if the detector were mirrored (sign -1) or shifted by
        so many bins; quarter: a quarter turn beside that, for comparison."""
        geometry = self._slices.geometry
        described = geometry.detector_positions_mm().numpy()
        fan = _fan_angle(geometry, sign * (described + shift * geometry.detector_pitch_mm))
        angle = np.array(geometry.view_angles_rad)
        some = np.unique(np.linspace(0, len(angle) - 1, min(_VIEWS, len(angle))).round().astype(int))
        there = angle[some, None] + math.pi - 2 * fan + (math.pi / 2 if quarter else 0.0)
        view, distance = _nearest_view(angle, there)
        # The bin at minus this one's true position, whether mirrored or not.
        column = -described / geometry.detector_pitch_mm - 2 * shift - geometry.detector_offset_bins
        column = np.broadcast_to(column + (geometry.detector_count - 1) / 2, view.shape)
        left = np.floor(column).astype(int)
        fits = (distance < self._reach) & (left >= 0) & (left < geometry.detector_count - 1)
        left = np.clip(left, 0, geometry.detector_count - 2)
        part = column - left
        differences, noises, values = [], [], []
        for one, weight in zip(self._slices.line_integrals, self._slices.weights, strict=True):
            opposite = (1 - part) * one[view, left] + part * one[view, left + 1]
            least = np.minimum(np.minimum(weight[view, left], weight[view, left + 1]), weight[some])
            used = fits & (least > 0)
            differences.append((one[some] - opposite)[used])
            noises.append(2 / least[used].astype(np.float64))
            values.append(one[some][used].astype(np.float64))
        return _Disagreement(*(np.concatenate(parts) for parts in (differences, noises, values)))


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
