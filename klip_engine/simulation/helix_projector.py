"""Projects a volume along the rays of a helix, each at its own height and lean.

All rows of a column share one shadow in the axial plane. Along it the volume's slices are summed up pixel by pixel
once; how far a row's ray stays in each slice then follows from where it crosses the borders of slices. Together
that is Siddon's sum over the boxes of the volume (Med. Phys. 12(2), 1985), but for the one pixel in which a ray
changes slices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from klip_engine.operators import FanGeometry
from klip_engine.operators.geometry import Rays
from klip_engine.operators.main_axis import MainAxis
from klip_engine.simulation.beam import Beam
from klip_engine.simulation.plane_projector import RAY_ENTRIES
from klip_engine.simulation.sub_rays import SubRay, rays_of

_LEAST_SLOPE = 1e-9


@dataclass(frozen=True)
class Stack:
    """The volume: attenuation per mm [materials, slices, rows, columns] of boxes, the slices `slice_mm` thick and
    the first one's middle at `first_mm` over the isocentre. Its end slices go on beyond it."""

    materials: torch.Tensor
    first_mm: float
    slice_mm: float

    def between(self, low_mm: float, high_mm: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The slices these heights lie in, [materials, pixels, slices], and the heights of their borders, the two
        outer ones at infinity: [slices + 1]."""
        count = self.materials.shape[1]
        first, last = (
            min(max(math.floor((z - self.first_mm) / self.slice_mm + 0.5), 0), count - 1) for z in (low_mm, high_mm)
        )
        slab = self.materials[:, first : last + 1].flatten(start_dim=2).transpose(1, 2).contiguous()
        inner = self.first_mm + (torch.arange(first, last, dtype=torch.float64) + 0.5) * self.slice_mm
        ends = torch.tensor([math.inf], dtype=torch.float64)
        return slab, torch.cat([-ends, inner, ends])


class HelixProjector:
    """geometry: the plane of every view, at its true angle, with the volume's pixels; heights_mm: of the source
    over the isocentre in every view; rows, row_mm: of the detector; bundle, rays: as of `PlaneProjector`."""

    def __init__(
        self,
        geometry: FanGeometry,
        heights_mm: Sequence[float],
        rows: int,
        row_mm: float,
        bundle: Sequence[SubRay] = (SubRay(),),
        *,
        rays: str = "exact",
    ) -> None:
        self.geometry = geometry
        self.heights_mm = tuple(heights_mm)
        self.rows = rows
        self.row_mm = row_mm
        self._bundle = tuple(bundle)
        self._entries = RAY_ENTRIES[rays]

    def transmission(
        self, stack: Stack, beam: Beam, tell: Callable[[int, int], None] | None = None
    ) -> torch.Tensor:
        """Signal behind the body over that in air, float32 [views, detector rows, columns]. tell: is called with
        (views done, views in all), and may raise to stop."""
        views = len(self.heights_mm)
        result = torch.zeros(views, self.rows, self.geometry.detector_count)
        for view, height in enumerate(self.heights_mm):
            steepest = 0.5 * self.rows * self.row_mm / self.geometry.source_to_detector_mm
            reach = steepest * (self.geometry.source_to_isocentre_mm + self.geometry.image_radius_mm)
            slab, borders = stack.between(height - reach, height + reach)
            for sub in self._bundle:
                integrals = self._integrals(view, sub, slab, borders - height)
                result[view] += beam.transmission(integrals) / len(self._bundle)
            if tell is not None:
                tell(view + 1, views)
        return result

    def _integrals(self, view: int, sub: SubRay, slab: torch.Tensor, borders: torch.Tensor) -> torch.Tensor:
        """Line integrals [materials, rows, columns] of one view; borders: heights over the source."""
        geometry = self.geometry
        rays = rays_of(geometry, view, view + 1, sub)
        rays = Rays(rays.point - rays.point.new_tensor(geometry.image_centre_mm), rays.direction)
        sums = self._sums_along(rays, slab)
        reach = geometry.ray_lengths_mm()
        heights = (torch.arange(self.rows, dtype=torch.float64) - (self.rows - 1) / 2 + sub.row) * self.row_mm
        slope = heights / reach[:, None]
        slope = torch.where(slope.abs() < _LEAST_SLOPE, _LEAST_SLOPE, slope)
        # Where each ray [column, row] meets each border, in mm along its shadow from the source, then in pixels.
        # Rays go on through the detector, as in a plane: it may be drawn through the isocentre.
        crossing = (borders / slope[..., None]).clamp(min=0)
        walk = MainAxis.of(rays, geometry.image_shape, geometry.pixel_spacing_mm)
        place = (walk.start[..., None] + walk.per_mm[..., None] * crossing + 0.5).clamp(min=0)
        place = place.minimum(walk.main_count[..., None].double())
        before = place.floor().clamp(max=sums.shape[2] - 2).long()
        share = (place - before).float()
        total = sums.new_zeros(len(sums), *slope.shape)
        for number in range(slab.shape[2]):
            of_slice = sums[..., number]
            ends = [_between(of_slice, before[..., k], share[..., k]) for k in (number, number + 1)]
            total += (ends[1] - ends[0]).abs()
        return (total * torch.hypot(slope, torch.ones_like(slope)).float()).transpose(1, 2)

    def _sums_along(self, rays: Rays, slab: torch.Tensor) -> torch.Tensor:
        """Line integrals of every slice from the first pixel along each shadow's main axis up to each further one:
        [materials, columns, steps + 1, slices]."""
        entries = self._entries(rays, self.geometry.image_shape, self.geometry.pixel_spacing_mm)
        weights = entries.weight.float().unflatten(1, (-1, 2, 1))
        pixels = entries.pixel.flatten().long()
        steps = [(material[pixels].unflatten(0, weights.shape[:3]) * weights).sum(dim=2) for material in slab]
        return torch.nn.functional.pad(torch.stack(steps).cumsum(dim=2), (0, 0, 1, 0))


def _between(sums: torch.Tensor, before: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Linear between two neighbouring sums: [materials, columns, steps + 1] at [columns, rows]."""
    index = before.expand(len(sums), -1, -1)
    here, there = sums.gather(2, index), sums.gather(2, index + 1)
    return torch.lerp(here, there, share.expand_as(here))
