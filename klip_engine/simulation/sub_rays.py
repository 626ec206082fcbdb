"""A measured ray is a bundle: over the width of its bin, the focal spot and the turn of the gantry in one view."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from klip_engine.operators import FanGeometry, ScanGeometry
from klip_engine.operators.geometry import Rays


@dataclass(frozen=True)
class SubRay:
    """Where one ray of a bundle runs, from its middle: in bins, rows, mm of focal spot, radians of view."""

    bin: float = 0.0
    row: float = 0.0
    spot_mm: float = 0.0
    angle_rad: float = 0.0


def sub_rays(count: int, spot_mm: float, step_rad: float) -> tuple[SubRay, ...]:
    """A bundle of `count` rays. Each of bin, row, spot and angle is cut into as many equal strata, one ray each, in
    orders that depend on each other as little as possible."""
    return tuple(
        SubRay(bin_, row, spot * spot_mm, angle * step_rad)
        for bin_, spot, angle, row in zip(*_orders(count), strict=True)
    )


def rays_of(geometry: ScanGeometry, first: int, last: int, sub: SubRay) -> Rays:
    """One ray of every bundle of views first .. last - 1, view by view and bin by bin; float64, mm from the
    isocentre."""
    moved = replace(
        geometry,
        view_angles_rad=tuple(angle + sub.angle_rad for angle in geometry.view_angles_rad[first:last]),
        detector_offset_bins=geometry.detector_offset_bins + sub.bin,
    )
    rays = moved.rays(0, last - first)
    if not (isinstance(moved, FanGeometry) and sub.spot_mm):
        return rays
    axes, _ = moved.axes(0, last - first)
    bins = geometry.detector_count
    source = rays.point + sub.spot_mm * axes.expand(-1, bins, -1).reshape(-1, 2)
    reach = moved.ray_lengths_mm().repeat(last - first)[:, None]
    along = rays.point + reach * rays.direction - source
    return Rays(source, along / along.norm(dim=1, keepdim=True))


@lru_cache
def _orders(count: int) -> npt.NDArray[np.float64]:
    """[4, count]: middles of the strata of (-1/2, 1/2), each row in the order that goes least with those above."""
    strata = (np.arange(count) + 0.5) / count - 0.5
    every = np.array(list(itertools.permutations(strata)))
    chosen = [strata]
    for _ in range(3):
        together = np.square(every @ np.array(chosen).T).sum(axis=1)
        chosen.append(every[int(np.argmin(np.round(together, 12)))])
    return np.array(chosen)
