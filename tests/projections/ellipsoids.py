"""Exact line integrals through ellipsoids, from a source and the element's place alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Ellipsoid(NamedTuple):
    """Axis-parallel, in LPS mm; mu per mm."""

    center: tuple[float, float, float]
    half_axes: tuple[float, float, float]
    mu: float


# Nothing about it is symmetric: a mirrored, turned or reversed axis changes the projections.
PHANTOM = (
    Ellipsoid((6.0, -4.0, 3.0), (70.0, 45.0, 60.0), 0.02),
    Ellipsoid((38.0, 12.0, 14.0), (9.0, 6.0, 11.0), 0.02),
    Ellipsoid((-20.0, -22.0, -9.0), (7.0, 13.0, 8.0), -0.01),
)


def through(start: np.ndarray, direction: np.ndarray, phantom=PHANTOM) -> np.ndarray:
    """Line integrals along the whole lines `start + t direction`, [..., 3] each."""
    direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    total = np.zeros(np.broadcast(start[..., 0], direction[..., 0]).shape)
    for center, half_axes, mu in phantom:
        p, d = (start - np.array(center)) / half_axes, direction / half_axes
        a, b, c = (d * d).sum(-1), (p * d).sum(-1), (p * p).sum(-1) - 1
        total += mu * 2 * np.sqrt(np.maximum(b * b - a * c, 0)) / a
    return total


def of_projections(projections, phantom=PHANTOM) -> np.ndarray:
    """What the geometry of `Projections` says each element must measure: [view, row, column]."""
    path, views = projections.trajectory, []
    for view in range(path.views):
        elements = projections.elements_mm(view)
        if path.source_mm is None:
            views.append(through(elements, np.broadcast_to(path.ray_direction[view], elements.shape), phantom))
        else:
            views.append(through(path.source_mm[view], elements - path.source_mm[view], phantom))
    return np.array(views)
