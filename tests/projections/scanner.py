"""A scanner made of closed forms: exact line integrals of ellipsoids along the rays of any trajectory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from klip_engine.projections import Detector, Projections, Trajectory

MU_WATER = 0.0192


@dataclass(frozen=True)
class Ellipsoid:
    """centre and semi-axes in LPS mm; value: in units of water, added to what it overlaps."""

    centre: tuple[float, float, float]
    semi_axes: tuple[float, float, float]
    value: float


BODY = (
    Ellipsoid((-4, 6, 0), (140, 105, 400), 1.0),
    Ellipsoid((-62, -8, 5), (42, 58, 70), -0.7),
    Ellipsoid((62, -26, -12), (38, 46, 60), -0.7),
    Ellipsoid((4, 70, 0), (22, 17, 300), 0.6),
    Ellipsoid((58, 52, 20), (26, 18, 24), 0.2),
    Ellipsoid((-70, -20, -8), (9, 9, 7), 0.7),
)
"""A chest that no flip or turn maps onto itself, and that changes along z."""


def ellipsoid_integrals(body, start, direction):
    """Exact integrals in water mm along lines [.., 3] with unit directions."""
    total = np.zeros(start.shape[:-1])
    for one in body:
        scale = np.asarray(one.semi_axes, dtype=float)
        p, d = (start - np.asarray(one.centre)) / scale, direction / scale
        a, b, c = (d * d).sum(-1), (p * d).sum(-1), (p * p).sum(-1) - 1
        total += one.value * 2 * np.sqrt(np.clip(b * b - a * c, 0, None)) / a
    return total


def slice_image(body, z, shape, pixel_mm, centre=(0.0, 0.0), thick_mm=0.0, samples=3):
    """Pixel (and slab) means of the body at height z, [y, x], in units of water."""
    rows, columns = shape
    sub = (np.arange(samples) - (samples - 1) / 2) / samples * pixel_mm
    y = (centre[1] + (np.arange(rows) - (rows - 1) / 2) * pixel_mm)[:, None] + sub
    x = (centre[0] + (np.arange(columns) - (columns - 1) / 2) * pixel_mm)[:, None] + sub
    heights = z + (np.linspace(-0.5, 0.5, 7) * thick_mm if thick_mm else np.zeros(1))
    image = np.zeros((rows, samples, columns, samples))
    for height in heights:
        for one in body:
            (cx, cy, cz), (ax, ay, az) = one.centre, one.semi_axes
            inside = (
                ((x - cx) / ax)[None, None] ** 2
                + ((y - cy) / ay)[:, :, None, None] ** 2
                + ((height - cz) / az) ** 2
            ) <= 1
            image += one.value * inside / len(heights)
    return image.mean(axis=(1, 3))


def fan_scan(
    body=BODY,
    *,
    angles,
    table_z=0.0,
    shape="cylindrical",
    columns=220,
    rows=1,
    column_pitch=3.2,
    row_pitch=2.0,
    central_column=None,
    radius=595.0,
    distance=1085.6,
    spot_angle=0.0,
    spot_z=0.0,
    spot_radius=0.0,
    mirrored=False,
    upside_down=False,
    **more,
):
    """Fan or cone beam projections. angles: the engine's view angles, radians; table_z: LPS z of each view; spot_*:
    how far the focal spot flies in each view, in radians and mm; mirrored, upside_down: columns and rows counted
    the other way."""
    angles = np.asarray(angles, dtype=float)
    views = len(angles)
    z = np.broadcast_to(np.asarray(table_z, dtype=float), views)
    spot = [np.broadcast_to(np.asarray(s, dtype=float), views) for s in (spot_angle, spot_radius, spot_z)]
    where = angles + spot[0]
    r = radius + spot[1]
    source = np.stack([r * np.sin(where), -r * np.cos(where), z + spot[2]], axis=1)
    u = np.stack([np.cos(angles), np.sin(angles), np.zeros(views)], axis=1)
    d = np.stack([-np.sin(angles), np.cos(angles), np.zeros(views)], axis=1)
    v = np.tile([0.0, 0.0, 1.0], (views, 1))
    focus = -radius * d + z[:, None] * v
    centre = focus + distance * d
    c0 = (columns - 1) / 2 + 0.25 if central_column is None else central_column
    r0 = (rows - 1) / 2
    c, q = np.arange(columns) - c0, np.arange(rows) - r0
    if shape == "cylindrical":
        gamma = c * column_pitch / distance
        element = (
            focus[:, None] + distance * (np.cos(gamma)[:, None] * d[:, None] + np.sin(gamma)[:, None] * u[:, None])
        )[:, None]
    else:
        element = (centre[:, None] + (c * column_pitch)[:, None] * u[:, None])[:, None]
    element = element + (q * row_pitch)[:, None, None] * v[:, None, None]
    direction = element - source[:, None, None]
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    data = MU_WATER * ellipsoid_integrals(body, np.broadcast_to(source[:, None, None], direction.shape), direction)
    if mirrored:
        data, u, c0 = data[..., ::-1], -u, columns - 1 - c0
    if upside_down:
        data, v, r0 = data[:, ::-1], -v, rows - 1 - r0
    detector = Detector(
        "cylindrical" if shape == "cylindrical" else "flat",
        columns,
        rows,
        column_pitch,
        row_pitch,
        (c0, r0),
        distance if shape == "cylindrical" else None,
    )
    trajectory = Trajectory(centre, u, v, source_mm=source)
    options = {"beam": "fan" if rows == 1 else "cone", "mu_water_per_mm": MU_WATER, "i0": 1e6} | more
    return Projections(np.ascontiguousarray(data, dtype=np.float32), trajectory, detector, **options)


def parallel_scan(body=BODY, *, angles, columns=220, rows=1, pitch=1.8, row_pitch=3.0, central_column=None, **more):
    """A stack of parallel projections."""
    angles = np.asarray(angles, dtype=float)
    zero = np.zeros(len(angles))
    u = np.stack([np.cos(angles), np.sin(angles), zero], axis=1)
    d = np.stack([-np.sin(angles), np.cos(angles), zero], axis=1)
    v = np.tile([0.0, 0.0, 1.0], (len(angles), 1))
    c0 = (columns - 1) / 2 + 0.25 if central_column is None else central_column
    element = (
        400 * d[:, None, None]
        + ((np.arange(columns) - c0) * pitch)[:, None] * u[:, None, None]
        + ((np.arange(rows) - (rows - 1) / 2) * row_pitch)[:, None, None] * v[:, None, None]
    )
    data = MU_WATER * ellipsoid_integrals(body, element, np.broadcast_to(d[:, None, None], element.shape))
    detector = Detector("flat", columns, rows, pitch, row_pitch, (c0, (rows - 1) / 2))
    trajectory = Trajectory(400 * d, u, v, ray_direction=d)
    options = {"beam": "parallel", "mu_water_per_mm": MU_WATER, "i0": 1e6} | more
    return Projections(data.astype(np.float32), trajectory, detector, **options)


def turn(views, start_deg=0.0, turns=1.0):
    """Evenly spaced view angles, radians."""
    return math.radians(start_deg) + 2 * math.pi * np.arange(round(views * turns)) / views
