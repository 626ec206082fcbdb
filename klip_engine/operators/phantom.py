"""Phantoms of ellipses: an image on any grid and the exact line integral of every ray.

The chord of a line in an ellipse is closed-form (Kak and Slaney, section 3.1), so phantoms hold projectors
and reconstructions to the truth without another projector.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from klip_engine.operators.geometry import Rays, ScanGeometry


@dataclasses.dataclass(frozen=True)
class Ellipse:
    """A filled ellipse; values of overlapping ellipses add up."""

    x_mm: float
    y_mm: float
    """Centre, in the axes of `geometry`."""
    semi_axis_1_mm: float
    semi_axis_2_mm: float
    tilt_deg: float
    """Angle of the first axis from +x towards +y."""
    value: float


ASYMMETRIC_PHANTOM = (
    Ellipse(x_mm=-4, y_mm=6, semi_axis_1_mm=150, semi_axis_2_mm=112, tilt_deg=4, value=1.0),
    Ellipse(x_mm=-66, y_mm=-8, semi_axis_1_mm=44, semi_axis_2_mm=62, tilt_deg=12, value=-0.7),
    Ellipse(x_mm=62, y_mm=-30, semi_axis_1_mm=38, semi_axis_2_mm=46, tilt_deg=-20, value=-0.7),
    Ellipse(x_mm=4, y_mm=74, semi_axis_1_mm=24, semi_axis_2_mm=18, tilt_deg=0, value=0.6),
    Ellipse(x_mm=66, y_mm=52, semi_axis_1_mm=30, semi_axis_2_mm=20, tilt_deg=35, value=0.06),
    Ellipse(x_mm=-72, y_mm=-20, semi_axis_1_mm=8, semi_axis_2_mm=8, tilt_deg=0, value=0.7),
)
"""A chest-like slice, in units of water, that no flip or quarter turn maps onto itself; 300 x 225 mm."""


def phantom_image(phantom: Sequence[Ellipse], geometry: ScanGeometry, samples_per_side: int = 5) -> torch.Tensor:
    """Pixel means over samples_per_side^2 points each, on a scan's grid: float64 [1, 1, rows, columns]."""
    rows, columns = geometry.image_shape
    spacing = geometry.pixel_spacing_mm / samples_per_side
    y = geometry.image_centre_mm[1] + _centred_grid(rows * samples_per_side, spacing)[:, None]
    x = geometry.image_centre_mm[0] + _centred_grid(columns * samples_per_side, spacing)[None]
    fine = torch.zeros(len(y), x.shape[1], dtype=torch.float64)
    for ellipse in phantom:
        first, second = _in_unit_circle(ellipse, x - ellipse.x_mm, y - ellipse.y_mm)
        fine += ellipse.value * (first.square() + second.square() <= 1)
    return torch.nn.functional.avg_pool2d(fine[None, None], samples_per_side)


def phantom_line_integrals(phantom: Sequence[Ellipse], rays: Rays) -> torch.Tensor:
    """Exact line integrals in value * mm: float64 [rays]."""
    total = torch.zeros(len(rays.point), dtype=torch.float64)
    for ellipse in phantom:
        point_1, point_2 = _in_unit_circle(
            ellipse, rays.point[:, 0] - ellipse.x_mm, rays.point[:, 1] - ellipse.y_mm
        )
        direction_1, direction_2 = _in_unit_circle(ellipse, rays.direction[:, 0], rays.direction[:, 1])
        stretch = direction_1.square() + direction_2.square()
        cross = point_1 * direction_2 - point_2 * direction_1
        total += ellipse.value * 2 * (stretch - cross.square()).clamp(min=0).sqrt() / stretch
    return total


def phantom_sinogram(phantom: Sequence[Ellipse], geometry: ScanGeometry) -> torch.Tensor:
    """Exact line integrals of a whole scan in value * mm: float64 [1, views, bins]."""
    views = len(geometry.view_angles_rad)
    return phantom_line_integrals(phantom, geometry.rays(0, views)).reshape(1, views, geometry.detector_count)


def _in_unit_circle(ellipse: Ellipse, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The linear map that makes the ellipse (moved to the origin) a unit circle."""
    cos, sin = math.cos(math.radians(ellipse.tilt_deg)), math.sin(math.radians(ellipse.tilt_deg))
    return (cos * x + sin * y) / ellipse.semi_axis_1_mm, (-sin * x + cos * y) / ellipse.semi_axis_2_mm


def _centred_grid(count: int, spacing: float) -> torch.Tensor:
    return (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) * spacing
