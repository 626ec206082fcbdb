"""Single-slice rebinning: the fan-beam sinogram of an axial slice from the oblique rays of a moving cone beam.

Noo, Defrise and Clackdoyle, Phys. Med. Biol. 44, 1999, 561-570: the ray of a slice at height z is taken from the
oblique ray in the same plane through the axis' direction that meets z halfway through the field of view, at the
foot of the perpendicular from the axis, and shortened by the cosine of its cone angle. Rays that the detector sees
in several turns are averaged; those that it sees in none are taken from the same line measured from opposite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from klip_engine.operators import FanGeometry, ScanGeometry
from klip_engine.scans.views import FanViews, Numbers

_TAPERED_ROWS = 0.2
"""Share of the detector's half height over which rows count less and less: turns give way to each other
smoothly."""


class Rays(NamedTuple):
    """Line integrals and inverse variances of the rays of a slice, and how well the detector saw them, 0 to 1."""

    value: Numbers
    weight: Numbers
    seen: Numbers


def slice_rays(views: FanViews, geometry: ScanGeometry, z_mm: float, *, filled: bool = True) -> Rays:
    """The sinogram [views of `geometry`, bins] of the slice `z_mm` from the isocentre; filled: rays that no turn
    saw are taken from the other side."""
    assert isinstance(geometry, FanGeometry)
    gamma = geometry.fan_angles_rad().numpy()[None]
    beta = np.array(geometry.view_angles_rad)[:, None] + 0 * gamma
    line = _Lines(z_mm, geometry.source_to_isocentre_mm)
    direct = _over_turns(views, line, beta, np.broadcast_to(gamma, beta.shape))
    missing = np.clip(1 - direct.seen, 0, 1)
    if not (filled and missing.any()):
        return direct
    opposite = _over_turns(views, line, beta + math.pi - 2 * gamma, np.broadcast_to(-gamma, beta.shape))
    filling = missing * np.minimum(opposite.seen, 1)
    total = direct.seen + filling
    share = np.divide(filling, total, out=np.zeros_like(total), where=total > 0)
    value = (1 - share) * direct.value + share * opposite.value
    # What fills a ray is another ray of the same slice as well: each then counts half.
    weight = _mixed(direct.weight, opposite.weight, share) * (1 - share / 2)
    return Rays(value, weight, total)


@dataclass(frozen=True)
class _Lines:
    """Where a slice lies, and the radius of the source circle that (beta, gamma) refer to."""

    z_mm: float
    radius: float


def _over_turns(views: FanViews, line: _Lines, beta: Numbers, gamma: Numbers) -> Rays:
    """The mean over the turns in which the detector sees the slice."""
    turn = 2 * math.pi
    total, total_weight, seen = np.zeros(beta.shape), np.zeros(beta.shape), np.zeros(beta.shape)
    first, last = _angles_in_reach(views, line)
    for number in range(math.floor((first - beta.max()) / turn), math.ceil((last - beta.min()) / turn) + 1):
        rays = _one_turn(views, line, beta + number * turn, gamma, (first, last))
        if rays is None:
            continue
        total += rays.seen * rays.value
        # Turns are measured independently: variances of a mean with weights `seen`.
        total_weight += np.divide(rays.seen**2, rays.weight, out=np.zeros_like(total), where=rays.weight > 0)
        seen += rays.seen
    there = seen > 0
    value = np.divide(total, seen, out=np.zeros_like(total), where=there)
    weight = np.divide(seen**2, total_weight, out=np.zeros_like(total), where=total_weight > 0)
    return Rays(value, weight, seen)


def _angles_in_reach(views: FanViews, line: _Lines) -> tuple[float, float]:
    """Source angles between which the slice falls on the detector, at any fan angle."""
    everything = np.arange(len(views))
    distance = views.distance_of(everything, np.zeros(len(views)))
    rows, middle = views.line_integrals.shape[1], (views.line_integrals.shape[1] - 1) / 2
    # At the isocentre the detector covers the least; a ray at the edge of the fan passes nearer to the source.
    half = 0.5 * rows * views.row_pitch_mm * views.radius / distance
    centre = views.source_z + (views.detector_z - views.source_z) * views.radius / distance
    centre = centre + (middle - views.central_row) * views.row_pitch_mm * views.radius / distance
    near = views.angle[np.abs(line.z_mm - centre) <= half]
    return (float(near.min()), float(near.max())) if len(near) else (math.inf, -math.inf)


def _one_turn(
    views: FanViews, line: _Lines, beta: Numbers, gamma: Numbers, reach: tuple[float, float]
) -> Rays | None:
    """Rays at unwrapped source angles `beta`, between the two nearest views; None where no view is in reach."""
    step = float(np.median(np.diff(views.angle))) if len(views) > 1 else 0.0
    if beta.max() < reach[0] - step or beta.min() > reach[1] + step:
        return None
    place = np.interp(beta, views.angle, np.arange(len(views)))
    inside = (beta > views.angle[0] - 0.51 * step) & (beta < views.angle[-1] + 0.51 * step)
    before = np.clip(np.floor(place + 1e-6).astype(np.int64), 0, max(0, len(views) - 2))
    after = np.minimum(before + 1, len(views) - 1)
    here = _Samples.of(views, line, before, gamma)
    direction = beta - gamma
    fraction = place - before
    if np.abs(fraction).max() > 1e-4 or np.ptp(views.radius) > 0:
        there = _Samples.of(views, line, after, gamma)
        gap = there.direction - here.direction
        fraction = np.divide(direction - here.direction, gap, out=np.zeros_like(gap), where=np.abs(gap) > 1e-9)
        fraction = np.clip(fraction, 0, 1)
        value = (1 - fraction) * here.value + fraction * there.value
        weight = _mixed(here.weight, there.weight, fraction)
        seen = (1 - fraction) * here.seen + fraction * there.seen
    else:
        value, weight, seen = here.value, here.weight, here.seen
    return Rays(value, weight, np.where(inside & (weight > 0), seen, 0))


class _Samples(NamedTuple):
    """What views measured along given lines: also the direction (beta - gamma) of the ray that each of them
    used."""

    value: Numbers
    weight: Numbers
    seen: Numbers
    direction: Numbers

    @staticmethod
    def of(views: FanViews, line: _Lines, view: npt.NDArray[np.int64], gamma: Numbers) -> _Samples:
        """Interpolated between rows and columns; `seen` falls to 0 at the first and last row."""
        radius = views.radius[view]
        own = np.arcsin(np.clip(line.radius * np.sin(gamma) / radius, -1, 1))
        distance = views.distance_of(view, own)
        source_z = views.source_z[view]
        rise = (line.z_mm - source_z) * distance / (radius * np.cos(own))
        row = views.central_row + (source_z + rise - views.detector_z[view]) / views.row_pitch_mm
        column = views.columns_of(view, own)
        value, weight = _bilinear(views, view, row, column)
        # The cosine of the cone angle: the oblique ray is longer than its shadow in the slice.
        cosine = distance / np.hypot(distance, rise)
        rows = views.line_integrals.shape[1]
        half = rows / 2
        taper = max(_TAPERED_ROWS * half, 1.0) if rows > 1 else 1e-3
        seen = np.clip((half - np.abs(row - (rows - 1) / 2)) / taper, 0, 1)
        return _Samples(value * cosine, weight / cosine**2, seen, views.angle[view] - own)


def _bilinear(
    views: FanViews, view: npt.NDArray[np.int64], row: Numbers, column: Numbers
) -> tuple[Numbers, Numbers]:
    """Values and weights between the four nearest elements, of those that measured anything."""
    _, rows, columns = views.line_integrals.shape
    on_detector = (column > -0.51) & (column < columns - 0.49)
    row, column = np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)
    upper, left = (np.floor(place + 1e-6).astype(np.int64) for place in (row, column))
    value, variance, share = np.zeros(row.shape), np.zeros(row.shape), np.zeros(row.shape)
    flat_values, flat_weights = views.line_integrals, views.weights
    for down in (0, 1):
        row_share = 1 - np.abs(row - (upper + down))
        for right in (0, 1):
            part = row_share * (1 - np.abs(column - (left + right)))
            part = np.where(part > 1e-5, part, 0)
            if not part.any():
                continue
            at = (view, np.minimum(upper + down, rows - 1), np.minimum(left + right, columns - 1))
            weight = flat_weights[at]
            part = np.where(weight > 0, part, 0)
            value += part * flat_values[at]
            # Variances are mixed like values: interpolation smooths noise, but its neighbours share it then.
            variance += np.divide(part, weight, out=np.zeros_like(part), where=weight > 0)
            share += part
    kept = (share > 1e-3) & on_detector
    value = np.divide(value, share, out=np.zeros_like(value), where=kept)
    return value, np.divide(share, variance, out=np.zeros_like(value), where=kept & (variance > 0))


def _mixed(first: Numbers, second: Numbers, share: Numbers) -> Numbers:
    """Inverse of the variances' mean, the second counting `share`; 0 where one that counts was not measured."""
    variance = np.zeros_like(share)
    lost = np.zeros(share.shape, dtype=bool)
    for weight, part in ((first, 1 - share), (second, share)):
        variance += np.divide(part, weight, out=np.zeros_like(share), where=weight > 0)
        lost |= (part > 1e-3) & (weight <= 0)
    return np.where(lost | (variance <= 0), 0, 1 / np.where(variance > 0, variance, 1))
