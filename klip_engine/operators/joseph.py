"""The CT system matrix by Joseph's method, as sparse rows in PyTorch.

Joseph, "An improved algorithm for reprojecting rays through pixel images", IEEE Trans. Med. Imaging 1(3),
1982: a ray is sampled once per pixel row (or column, whichever it crosses more steeply) by linear
interpolation between the two pixels beside it, and each sample weighs the length of ray between two samples,
spacing / |cos|. Pixels outside the image count as 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch

from klip_engine.operators.geometry import Rays, ScanGeometry
from klip_engine.operators.main_axis import MainAxis
from klip_engine.operators.sparse_rows import (
    ENTRIES_PER_BLOCK,
    Entries,
    compress,
    concatenated,
    csr_tensor,
    transposed,
)


class SystemMatrix(Protocol):
    """A system matrix [rays, pixels] that multiplies batches of flattened images and measurements."""

    nbytes: int
    """Memory held between products."""

    def project(self, images: torch.Tensor) -> torch.Tensor:
        """[batch, pixels] -> [batch, rays]."""
        ...

    def back_project(self, measurements: torch.Tensor) -> torch.Tensor:
        """[batch, rays] -> [batch, pixels]: the transpose of `project`."""
        ...


def estimated_nonzeros(geometry: ScanGeometry) -> int:
    """Nonzeros of the matrix, 5 to 15 % high where the detector sees the whole image.

    A ray leaves two in every pixel row (or column) that it crosses, and the rays of a view cross a row at
    least pitch / magnification apart in a parallel beam, about that on average in a fan.
    """
    rows, columns = geometry.image_shape
    bin_at_isocentre_mm = geometry.detector_pitch_mm / geometry.magnification
    crossings_per_view = min(
        rows * columns * geometry.pixel_spacing_mm / bin_at_isocentre_mm,
        geometry.detector_count * max(rows, columns),
    )
    return int(len(geometry.view_angles_rad) * 2 * crossings_per_view)


class StoredMatrix:
    """The system matrix and its transpose, both kept as compressed sparse rows with 32-bit indices.

    Storing the transpose too costs its memory and makes back-projection a product of the same kind and speed:
    multiplying by a transposed view takes fifty times as long on a CPU.
    """

    def __init__(self, geometry: ScanGeometry, device: torch.device | str, dtype: torch.dtype) -> None:
        rows = concatenated([compress(block, dtype) for block in _blocks(geometry, device)])
        shape = (len(rows.lengths), geometry.image_shape[0] * geometry.image_shape[1])
        self._rows = csr_tensor(rows, shape)
        self._columns = csr_tensor(transposed(rows, shape[1]), shape[::-1])
        row_starts = torch.int32.itemsize * (sum(shape) + 2)
        self.nbytes = 2 * (rows.columns.nbytes + rows.weights.nbytes) + row_starts

    def project(self, images: torch.Tensor) -> torch.Tensor:
        """[batch, pixels] -> [batch, rays]."""
        return (self._rows @ images.T).T

    def back_project(self, measurements: torch.Tensor) -> torch.Tensor:
        """[batch, rays] -> [batch, pixels]."""
        return (self._columns @ measurements.T).T


class RowBlockMatrix:
    """The system matrix rebuilt a few views at a time in every product: slow, and small whatever the scan."""

    nbytes = 0

    def __init__(self, geometry: ScanGeometry, device: torch.device | str, dtype: torch.dtype) -> None:
        self._geometry = geometry
        self._device = device
        self._dtype = dtype

    def project(self, images: torch.Tensor) -> torch.Tensor:
        """[batch, pixels] -> [batch, rays]."""
        rays = len(self._geometry.view_angles_rad) * self._geometry.detector_count
        measurements = images.new_empty(len(images), rays)
        first = 0
        for pixel, weight in _blocks(self._geometry, self._device):
            weight = weight.to(self._dtype)
            for image, measurement in zip(images, measurements, strict=True):
                measurement[first : first + len(pixel)] = (image[pixel] * weight).sum(dim=1)
            first += len(pixel)
        return measurements

    def back_project(self, measurements: torch.Tensor) -> torch.Tensor:
        """[batch, rays] -> [batch, pixels]."""
        rows, columns = self._geometry.image_shape
        images = measurements.new_zeros(len(measurements), rows * columns)
        first = 0
        for pixel, weight in _blocks(self._geometry, self._device):
            weight = weight.to(self._dtype)
            block = measurements[:, first : first + len(pixel), None]
            for image, values in zip(images, block, strict=True):
                image.index_add_(0, pixel.flatten(), (weight * values).flatten())
            first += len(pixel)
        return images


def joseph_entries(rays: Rays, image_shape: tuple[int, int], spacing_mm: float) -> Entries:
    """Joseph's interpolation weights in mm (float64), and the flat pixel index (int32) each belongs to.

    The rays' points are from the middle of the image grid.
    """
    walk = MainAxis.of(rays, image_shape, spacing_mm)
    side = walk.side_at(walk.steps)
    lower = side.floor()
    fraction = side - lower
    return walk.entries(lower, 1 - fraction, fraction)


def _blocks(geometry: ScanGeometry, device: torch.device | str) -> Iterator[Entries]:
    """The matrix a few views at a time, in the order of its rows."""
    entries_per_view = geometry.detector_count * 2 * max(geometry.image_shape)
    views_per_block = max(1, ENTRIES_PER_BLOCK // entries_per_view)
    views = len(geometry.view_angles_rad)
    for first in range(0, views, views_per_block):
        rays = geometry.rays(first, min(first + views_per_block, views), device)
        from_image_centre = rays.point - rays.point.new_tensor(geometry.image_centre_mm)
        rays = Rays(from_image_centre, rays.direction)
        yield joseph_entries(rays, geometry.image_shape, geometry.pixel_spacing_mm)
