"""A system matrix of many views in a fraction of its memory: views that are turned or mirrored copies share rows.

A square image centred on the isocentre maps onto itself under quarter turns and mirroring. Where the angles of a
scan do too, one view in up to eight needs rows of its own: the others are the same rows times a turned or mirrored
image. The rows then also serve several right-hand sides at once, which is what makes the product fast: a sparse
product is bound by reading the matrix.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from klip_engine.operators.geometry import FanGeometry, ScanGeometry
from klip_engine.operators.joseph import StoredMatrix

_SAME_ANGLE_RAD = 1e-7
"""Half a metre away that is 50 nm, less than single precision resolves."""
_COLUMNS_AT_ONCE = 8
"""Right-hand sides of one sparse product: beyond, they no longer stay in the processor's cache."""


class Symmetry(NamedTuple):
    """A symmetry of the square: swap x and y, then mirror."""

    swap: bool
    flip_y: bool
    flip_x: bool

    @property
    def mirrors(self) -> bool:
        """True where left and right change places, as no turn does."""
        return self.swap ^ self.flip_y ^ self.flip_x

    def of_image(self, image: torch.Tensor) -> torch.Tensor:
        """The image [.., n, n] under this symmetry."""
        image = image.transpose(-1, -2) if self.swap else image
        return image.flip(self._flipped) if self._flipped else image

    def undone(self, image: torch.Tensor) -> torch.Tensor:
        """The image that `of_image` would turn into this one."""
        image = image.flip(self._flipped) if self._flipped else image
        return image.transpose(-1, -2) if self.swap else image

    def of_angle(self, angle: npt.NDArray[np.float64], is_fan: bool) -> npt.NDArray[np.float64]:
        """View angles whose rays through an image are those of `angle` through the image under this symmetry.

        A mirrored parallel view keeps its detector axis, a mirrored fan its source, and its bins change order.
        """
        x, y = np.cos(angle), np.sin(angle)
        if is_fan:  # the central ray
            x, y = -y, x
        x, y = (-x if self.flip_x else x), (-y if self.flip_y else y)
        x, y = (y, x) if self.swap else (x, y)
        turned: npt.NDArray[np.float64] = np.arctan2(-x, y) if is_fan else np.arctan2(y, x)
        return turned

    @property
    def _flipped(self) -> list[int]:
        return [axis for axis, flip in ((-2, self.flip_y), (-1, self.flip_x)) if flip]


class Copies(NamedTuple):
    """Views `views` [n] of a scan are the kept views number `kept` [n] under a symmetry."""

    symmetry: Symmetry
    kept: torch.Tensor
    views: torch.Tensor


def shared_views(geometry: ScanGeometry) -> tuple[tuple[int, ...], list[Copies]]:
    """The views whose rows are to be kept, and how every view follows from one of them."""
    is_fan = isinstance(geometry, FanGeometry)
    angles = np.array(geometry.view_angles_rad)
    kept: list[int] = []
    found: dict[Symmetry, list[tuple[int, int]]] = {}
    symmetries = _symmetries(geometry)
    copies = {symmetry: _matches(angles, symmetry.of_angle(angles, is_fan)) for symmetry in symmetries}
    missing = np.ones(len(angles), dtype=bool)
    for view in range(len(angles)):
        if not missing[view]:
            continue
        for symmetry in symmetries:
            copy = view if symmetry == symmetries[0] else int(copies[symmetry][view])
            if copy >= 0 and missing[copy]:
                missing[copy] = False
                found.setdefault(symmetry, []).append((len(kept), copy))
        kept.append(view)
    pairs = {symmetry: torch.tensor(both) for symmetry, both in found.items()}
    return tuple(kept), [Copies(symmetry, both[:, 0], both[:, 1]) for symmetry, both in pairs.items()]


def _symmetries(geometry: ScanGeometry) -> list[Symmetry]:
    """Those under which the image grid and the bins map onto themselves; the first leaves everything as it is."""
    rows, columns = geometry.image_shape
    if rows != columns or geometry.image_centre_mm != (0.0, 0.0):
        return [Symmetry(False, False, False)]
    every = [Symmetry(*choice) for choice in itertools.product((False, True), repeat=3)]
    mirrors_fit = not isinstance(geometry, FanGeometry) or geometry.detector_offset_bins == 0
    return [symmetry for symmetry in every if mirrors_fit or not symmetry.mirrors]


def _matches(angles: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """For each wanted angle the view that stands there, modulo a turn, or -1."""
    turn = 2 * math.pi
    order = np.argsort(np.mod(angles, turn))
    ordered = np.mod(angles, turn)[order]
    after = np.searchsorted(ordered, np.mod(wanted, turn))
    result = np.full(len(wanted), -1)
    for neighbour in (after - 1, after):
        view = order[neighbour % len(angles)]
        distance = np.abs(np.mod(wanted - angles[view] + math.pi, turn) - math.pi)
        result = np.where(distance < _SAME_ANGLE_RAD, view, result)
    return result


class SharedMatrix:
    """The system matrix of a scan of which only the rows of some views are stored, see `shared_views`."""

    def __init__(self, geometry: ScanGeometry, device: torch.device | str, dtype: torch.dtype) -> None:
        kept, copies = shared_views(geometry)
        self._copies = [Copies(c.symmetry, c.kept.to(device), c.views.to(device)) for c in copies]
        self._reversed = isinstance(geometry, FanGeometry)
        self._side = geometry.image_shape[0]
        self._views, self._kept, self._bins = len(geometry.view_angles_rad), len(kept), geometry.detector_count
        angles = tuple(geometry.view_angles_rad[view] for view in kept)
        self._matrix = StoredMatrix(dataclasses.replace(geometry, view_angles_rad=angles), device, dtype)
        self.nbytes = self._matrix.nbytes

    def project(self, images: torch.Tensor) -> torch.Tensor:
        """[batch, pixels] -> [batch, rays]."""
        return torch.cat([self._project(few) for few in images.split(self._images_at_once)])

    def back_project(self, measurements: torch.Tensor) -> torch.Tensor:
        """[batch, rays] -> [batch, pixels]."""
        return torch.cat([self._back_project(few) for few in measurements.split(self._images_at_once)])

    @property
    def _images_at_once(self) -> int:
        return max(1, _COLUMNS_AT_ONCE // len(self._copies))

    def _project(self, images: torch.Tensor) -> torch.Tensor:
        squares = images.unflatten(1, (self._side, self._side))
        turned = torch.stack([copies.symmetry.of_image(squares) for copies in self._copies])
        products = self._matrix.project(turned.flatten(0, 1).flatten(1))
        products = products.reshape(len(self._copies), len(images), self._kept, self._bins)
        result = images.new_empty(len(images), self._views, self._bins)
        for copies, product in zip(self._copies, products, strict=True):
            result[:, copies.views] = self._bin_order(product[:, copies.kept], copies.symmetry)
        return result.flatten(1)

    def _back_project(self, measurements: torch.Tensor) -> torch.Tensor:
        data = measurements.unflatten(1, (self._views, self._bins))
        shares = data.new_zeros(len(self._copies), len(data), self._kept, self._bins)
        for copies, share in zip(self._copies, shares, strict=True):
            share[:, copies.kept] = self._bin_order(data[:, copies.views], copies.symmetry)
        images = self._matrix.back_project(shares.flatten(0, 1).flatten(1))
        images = images.reshape(len(self._copies), len(data), self._side, self._side)
        each = [copies.symmetry.undone(part) for copies, part in zip(self._copies, images, strict=True)]
        return torch.stack(each).sum(dim=0).flatten(1)

    def _bin_order(self, data: torch.Tensor, symmetry: Symmetry) -> torch.Tensor:
        return data.flip(-1) if self._reversed and symmetry.mirrors else data
