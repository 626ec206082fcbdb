"""Lesion shapes in millimetres and the fraction of each voxel that they fill.

A shape is described in its own frame, centred on the origin; a `Pose` puts it into the patient. What a voxel
shows of it is its partial volume, so an edge is as smooth as the voxel is wide, on any grid.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from klip_engine.volume import BoolArray, FloatArray, Geometry

Points = npt.NDArray[np.float64]
Box = tuple[slice, slice, slice]

_SUB_VOXELS = 4
"""Sample points per voxel and axis: 64 per voxel, an edge in steps of about 2 % of the contrast."""


class Shape(Protocol):
    """A solid around the origin of its own frame; millimetres along the axes (u, v, w)."""

    @property
    def diameters_mm(self) -> tuple[float, float, float]:
        """Full extent along each axis of the shape's frame."""

    @property
    def volume_mm3(self) -> float:
        """Volume in closed form."""

    def contains(self, points: Points) -> BoolArray:
        """Which points [..., 3] in mm of the shape's frame lie inside: [...]."""

    def near(self, points: Points, reach_mm: float) -> BoolArray:
        """False only for points [..., 3] from which no point within that reach lies inside."""


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid with the given full diameters."""

    diameters_mm: tuple[float, float, float]

    @property
    def volume_mm3(self) -> float:
        """pi / 6 times the product of the diameters."""
        return math.pi / 6 * math.prod(self.diameters_mm)

    def contains(self, points: Points) -> BoolArray:
        """Which points [..., 3] lie inside."""
        scaled: Points = 2 * points / np.asarray(self.diameters_mm)
        return np.einsum("...k,...k->...", scaled, scaled) <= 1

    def near(self, points: Points, reach_mm: float) -> BoolArray:
        """Points in the ellipsoid widened by more than the reach."""
        scaled: Points = 2 * points / np.asarray(self.diameters_mm)
        return np.einsum("...k,...k->...", scaled, scaled) <= (1 + 2 * reach_mm / min(self.diameters_mm)) ** 2


@dataclass(frozen=True)
class StarPrism:
    """A regular five-pointed star (pentagram) in the (u, v) plane, extruded along w.

    diameters_mm: twice the distance from the centre to a point along u and along v, and the thickness.
    """

    diameters_mm: tuple[float, float, float]

    INNER_RADIUS = math.sin(math.radians(18)) / math.sin(math.radians(54))
    """Of the notches between the points, where the points have radius 1."""

    @property
    def volume_mm3(self) -> float:
        """Ten triangles of angle 36 degrees between a point and a notch, times the thickness."""
        width, height, thickness = self.diameters_mm
        return 5 * self.INNER_RADIUS * math.sin(math.pi / 5) * width * height / 4 * thickness

    def contains(self, points: Points) -> BoolArray:
        """Which points [..., 3] lie inside; the first point of the star lies on +v."""
        u, v, w = np.moveaxis(2 * points / np.asarray(self.diameters_mm), -1, 0)
        sector = 2 * math.pi / 5
        angle = np.abs((np.arctan2(u, v) + sector / 2) % sector - sector / 2)  # from the nearest point, 0..36 deg
        along, across = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle)
        notch_along = self.INNER_RADIUS * math.cos(sector / 2)
        notch_across = self.INNER_RADIUS * math.sin(sector / 2)
        inside_edge = (1 - along) * notch_across - (1 - notch_along) * across >= 0
        return inside_edge & (np.abs(w) <= 1)

    def near(self, points: Points, reach_mm: float) -> BoolArray:
        """Points in the cylinder around the star, widened by more than the reach."""
        u, v, w = np.moveaxis(2 * points / np.asarray(self.diameters_mm), -1, 0)
        wider = 1 + 2 * reach_mm / min(self.diameters_mm)
        return (u**2 + v**2 <= wider**2) & (np.abs(w) <= wider)


Relief = tuple[tuple[float, ...], ...]
"""Where a wall lies, in mm along v: rows evenly spaced over the whole of w, columns over the whole of u."""


@dataclass(frozen=True)
class Crescent:
    """A layer of fluid on a wall: thickest in the middle of the wall, gone at the ends.

    size_mm: width along u, greatest thickness along v and length along w; wall_mm: the wall that the layer lies
    on, bilinear in between; the layer is on its -v side. Without a wall it is an arch as high as a sixth of the
    width.
    """

    size_mm: tuple[float, float, float]
    wall_mm: Relief = ()

    OVERLAP_MM = 1.0
    """How far the layer reaches into the wall, so that no rim is left between them."""

    @property
    def diameters_mm(self) -> tuple[float, float, float]:
        """Full extent of the box around it, which is centred on the origin."""
        width, thickness, length = self.size_mm
        wall = self._grid()
        highest = max(abs(float(wall.max()) + self.OVERLAP_MM), abs(float(wall.min()) - thickness))
        return width, 2 * highest, length

    @property
    def volume_mm3(self) -> float:
        """Of the layer in front of the wall: 2/3 of its box, 2/3 of that again along w."""
        return 4 / 9 * math.prod(self.size_mm)

    def contains(self, points: Points) -> BoolArray:
        """Which points [..., 3] lie inside."""
        width, _, length = self.size_mm
        u, v, w = np.moveaxis(points, -1, 0)
        across, along = 2 * u / width, 2 * w / length
        thickness = self.thickness_mm(across, along)
        wall = _bilinear(self._grid(), (along + 1) / 2, (across + 1) / 2)
        overlap = np.minimum(self.OVERLAP_MM, thickness / 2)
        return (thickness > 0) & (v <= wall + overlap) & (v >= wall - thickness)

    def near(self, points: Points, reach_mm: float) -> BoolArray:
        """Points about as near to the wall as the layer is thick."""
        width, _, length = self.size_mm
        u, v, w = np.moveaxis(points, -1, 0)
        across, along = 2 * u / width, 2 * w / length
        inwards_across = np.maximum(np.abs(across) - 2 * reach_mm / width, 0)
        inwards_along = np.maximum(np.abs(along) - 2 * reach_mm / length, 0)
        thickest = self.thickness_mm(inwards_across, inwards_along)
        grid = self._grid()
        wall = _bilinear(grid, (along + 1) / 2, (across + 1) / 2)
        steepest = math.hypot(
            float(np.abs(np.diff(grid, axis=0)).max()) * (grid.shape[0] - 1) / length,
            float(np.abs(np.diff(grid, axis=1)).max()) * (grid.shape[1] - 1) / width,
        )
        reach = (1 + steepest) * reach_mm
        return (thickest > 0) & (v <= wall + self.OVERLAP_MM + reach) & (v >= wall - thickest - reach)

    def thickness_mm(self, across: Points, along: Points) -> Points:
        """Thickness at positions -1..1 across the width and along the length; 0 beyond."""
        inside = (np.abs(across) < 1) & (np.abs(along) < 1)
        return np.asarray(np.where(inside, self.size_mm[1] * (1 - across**2) * (1 - along**2), 0.0))

    def _grid(self) -> Points:
        if self.wall_mm:
            return np.asarray(self.wall_mm, dtype=np.float64)
        arch = self.size_mm[0] / 6 * (1 - np.linspace(-1, 1, 33) ** 2)
        return np.stack([arch, arch])


def _bilinear(grid: Points, row: Points, column: Points) -> Points:
    """Values of a grid at positions 0..1 along its rows and columns; beyond, those of its border."""
    i = np.clip(row, 0, 1) * (grid.shape[0] - 1)
    j = np.clip(column, 0, 1) * (grid.shape[1] - 1)
    i0 = np.minimum(i.astype(int), grid.shape[0] - 2)
    j0 = np.minimum(j.astype(int), grid.shape[1] - 2)
    di, dj = i - i0, j - j0
    upper = grid[i0, j0] * (1 - dj) + grid[i0, j0 + 1] * dj
    lower = grid[i0 + 1, j0] * (1 - dj) + grid[i0 + 1, j0 + 1] * dj
    return np.asarray(upper * (1 - di) + lower * di)


@dataclass(frozen=True)
class Pose:
    """Where a shape lies in the patient.

    centre_lps_mm: its centre; axes_lps: 3 x 3 row-major, column k is the LPS unit vector of its axis k.
    """

    centre_lps_mm: tuple[float, float, float]
    axes_lps: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @property
    def axes(self) -> Points:
        """`axes_lps` as a matrix from the shape's frame to LPS."""
        return np.asarray(self.axes_lps, dtype=np.float64).reshape(3, 3)


def coverage(
    shape: Shape, pose: Pose, geometry: Geometry, *, margin: int = 0, sub_voxels: int = _SUB_VOXELS
) -> tuple[Box, FloatArray]:
    """The fraction of each voxel that lies inside the shape.

    Returns the part of the array [z, y, x] around the shape, `margin` voxels wider than needed and cut off at
    the array's border, and the fractions 0..1 in it. A shape outside the array gives an empty part.
    """
    box = _bounding_box(shape, pose, geometry, 0)
    k, j, i = np.meshgrid(*(np.arange(part.start, part.stop) for part in box), indexing="ij")
    to_shape = np.linalg.inv(pose.axes)
    centres = (geometry.to_lps(np.stack([i, j, k], axis=-1)) - pose.centre_lps_mm) @ to_shape.T
    offsets = (np.arange(sub_voxels) + 0.5) / sub_voxels - 0.5
    steps = to_shape @ geometry.matrix[:3, :3]
    reach = float(np.linalg.norm(np.abs(steps) @ np.full(3, offsets.max()))) + 1e-6
    near = shape.near(centres, reach)
    points = centres[near]
    hits = np.zeros(len(points), dtype=np.float32)
    for offset in itertools.product(offsets, repeat=3):
        hits += shape.contains(points + steps @ np.asarray(offset))
    wide = _bounding_box(shape, pose, geometry, margin)
    weight = np.zeros([part.stop - part.start for part in wide], dtype=np.float32)
    inner = tuple(
        slice(part.start - outer.start, part.stop - outer.start) for part, outer in zip(box, wide, strict=True)
    )
    weight[inner][near] = hits / sub_voxels**3
    return wide, weight


def _bounding_box(shape: Shape, pose: Pose, geometry: Geometry, margin: int) -> Box:
    half = np.asarray(shape.diameters_mm) / 2
    corners = np.array(list(itertools.product(*((-h, h) for h in half)))) @ pose.axes.T + pose.centre_lps_mm
    index = geometry.to_index(corners)
    first = np.floor(index.min(axis=0)).astype(int) - margin
    last = np.ceil(index.max(axis=0)).astype(int) + margin
    spans: list[Any] = [
        slice(min(max(0, a), n), max(min(n, b + 1), min(max(0, a), n)))
        for a, b, n in zip(first, last, geometry.size, strict=True)
    ]
    return spans[2], spans[1], spans[0]
