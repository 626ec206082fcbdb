"""Rays walked along the image axis they run closest to: in each step they touch at most two pixels side by side."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch

from klip_engine.operators.geometry import Rays
from klip_engine.operators.sparse_rows import Entries


class MainAxis(NamedTuple):
    """Where rays pass the pixels of an image; tensors [rays, 1] but for `steps` [1, steps].

    A ray passes the middle of the pixels numbered m along its main axis at `offset + slope * m` along the side
    axis, in pixels from the middle of the first; `length_mm` of it lie between two such places. Along the main axis
    its own point lies at `start`, and each mm of it leads `per_mm` pixels on.
    """

    offset: torch.Tensor
    slope: torch.Tensor
    length_mm: torch.Tensor
    start: torch.Tensor
    per_mm: torch.Tensor
    main_count: torch.Tensor
    side_count: torch.Tensor
    main_stride: torch.Tensor
    side_stride: torch.Tensor
    steps: torch.Tensor

    @classmethod
    def of(cls, rays: Rays, image_shape: tuple[int, int], spacing_mm: float) -> Self:
        """Of rays (float64) whose points are from the middle of the image grid (rows, columns)."""
        rows, columns = image_shape
        along_x = rays.direction[:, 0].abs() > rays.direction[:, 1].abs()
        # Below, the ray steps along its main axis and drifts along the side axis; pairs are (main, side).
        direction = torch.where(along_x[:, None], rays.direction, rays.direction.flip(1))
        start = torch.where(along_x[:, None], rays.point, rays.point.flip(1))
        main_count = torch.where(along_x, columns, rows)[:, None]
        side_count = torch.where(along_x, rows, columns)[:, None]
        slope = (direction[:, 1] / direction[:, 0])[:, None]
        at_first = (start[:, 1:] - start[:, :1] * slope) / spacing_mm - slope * (main_count - 1) / 2
        return cls(
            offset=at_first + (side_count - 1) / 2,
            slope=slope,
            length_mm=spacing_mm / direction[:, :1].abs(),
            start=start[:, :1] / spacing_mm + (main_count - 1) / 2,
            per_mm=direction[:, :1] / spacing_mm,
            main_count=main_count,
            side_count=side_count,
            main_stride=torch.where(along_x, 1, columns)[:, None].int(),
            side_stride=torch.where(along_x, columns, 1)[:, None].int(),
            steps=torch.arange(max(rows, columns), device=rays.point.device, dtype=torch.int32)[None],
        )

    def side_at(self, main: torch.Tensor) -> torch.Tensor:
        """Pixels along the side axis, from the middle of the first, at pixels `main` along the main axis."""
        return self.offset + self.slope * main

    def entries(self, lower: torch.Tensor, lower_share: torch.Tensor, upper_share: torch.Tensor) -> Entries:
        """Matrix rows of which each step shares its length between pixel `lower` along the side and the next;
        all [rays, steps]. What lies outside the image gets weight 0."""
        # Clamped before the cast: a ray far outside the image must not overflow 32 bits.
        neighbour = torch.stack([lower, lower + 1], dim=-1).clamp_(-1, self.steps.shape[1]).int()
        weight = torch.stack([lower_share, upper_share], dim=-1) * self.length_mm[..., None]
        inside = (neighbour >= 0) & (neighbour < self.side_count[..., None])
        inside = inside & (self.steps < self.main_count)[..., None]
        pixel = self.steps[..., None] * self.main_stride[..., None] + neighbour * self.side_stride[..., None]
        return Entries(
            torch.where(inside, pixel, 0).flatten(start_dim=1),
            torch.where(inside, weight, 0.0).flatten(start_dim=1),
        )
