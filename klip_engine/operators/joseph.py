"""The CT system matrix by Joseph's method, as sparse rows in PyTorch.

Joseph, "An improved algorithm for reprojecting rays through pixel images", IEEE Trans. Med. Imaging 1(3),
1982: a ray is sampled once per pixel row (or column, whichever it crosses more steeply) by linear
interpolation between the two pixels beside it, and each sample weighs the length of ray between two samples,
spacing / |cos|. Pixels outside the image count as 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch

from klip_engine.operators.geometry import Rays, ScanGeometry

_ENTRIES_PER_BLOCK = 2_000_000


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
        rows = _concatenated([_compress(block, dtype) for block in _blocks(geometry, device)])
        shape = (len(rows.lengths), geometry.image_shape[0] * geometry.image_shape[1])
        self._rows = _csr(rows, shape)
        self._columns = _csr(_transposed(rows, shape[1]), shape[::-1])
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


class Entries(NamedTuple):
    """The nonzeros of some rows, padded to equal length with weight 0 at pixel 0; both [rays, entries]."""

    pixel: torch.Tensor
    weight: torch.Tensor


def joseph_entries(rays: Rays, image_shape: tuple[int, int], spacing_mm: float) -> Entries:
    """Joseph's interpolation weights in mm (float64), and the flat pixel index (int32) each belongs to.

    The rays' points are from the middle of the image grid.
    """
    rows, columns = image_shape
    along_x = rays.direction[:, 0].abs() > rays.direction[:, 1].abs()
    # Below, the ray steps along its main axis and drifts along the side axis; pairs are (main, side).
    direction = torch.where(along_x[:, None], rays.direction, rays.direction.flip(1))
    start = torch.where(along_x[:, None], rays.point, rays.point.flip(1))
    main_count = torch.where(along_x, columns, rows)[:, None]
    side_count = torch.where(along_x, rows, columns)[:, None]
    main_stride = torch.where(along_x, 1, columns)[:, None].int()
    side_stride = torch.where(along_x, columns, 1)[:, None].int()

    step = torch.arange(max(rows, columns), device=rays.point.device, dtype=torch.int32)[None]
    slope = (direction[:, 1] / direction[:, 0])[:, None]
    side_at_first = (start[:, 1:] - start[:, :1] * slope) / spacing_mm - slope * (main_count - 1) / 2
    side = side_at_first + slope * step + (side_count - 1) / 2
    lower = side.floor()
    fraction = side - lower
    length = spacing_mm / direction[:, :1].abs()

    # Clamped before the cast: a ray far outside the image must not overflow 32 bits.
    neighbour = torch.stack([lower, lower + 1], dim=-1).clamp_(-1, max(rows, columns)).int()
    weight = torch.stack([1 - fraction, fraction], dim=-1) * length[..., None]
    inside = (neighbour >= 0) & (neighbour < side_count[..., None]) & (step < main_count)[..., None]
    pixel = step[..., None] * main_stride[..., None] + neighbour * side_stride[..., None]
    return Entries(
        torch.where(inside, pixel, 0).flatten(start_dim=1),
        torch.where(inside, weight, 0.0).flatten(start_dim=1),
    )


def _blocks(geometry: ScanGeometry, device: torch.device | str) -> Iterator[Entries]:
    """The matrix a few views at a time, in the order of its rows."""
    entries_per_view = geometry.detector_count * 2 * max(geometry.image_shape)
    views_per_block = max(1, _ENTRIES_PER_BLOCK // entries_per_view)
    views = len(geometry.view_angles_rad)
    for first in range(0, views, views_per_block):
        rays = geometry.rays(first, min(first + views_per_block, views), device)
        from_image_centre = rays.point - rays.point.new_tensor(geometry.image_centre_mm)
        rays = Rays(from_image_centre, rays.direction)
        yield joseph_entries(rays, geometry.image_shape, geometry.pixel_spacing_mm)


class _SparseRows(NamedTuple):
    """Nonzeros row after row and, within a row, by column."""

    lengths: torch.Tensor
    """Nonzeros per row, int64."""
    columns: torch.Tensor
    """Of every nonzero, int32."""
    weights: torch.Tensor


def _compress(entries: Entries, dtype: torch.dtype) -> _SparseRows:
    weight = entries.weight.to(dtype)
    kept = weight > 0
    beyond_last = torch.iinfo(torch.int32).max
    pixel, order = torch.where(kept, entries.pixel, beyond_last).sort(dim=1)
    kept_in_order = pixel != beyond_last
    return _SparseRows(kept.sum(dim=1), pixel[kept_in_order], weight.gather(1, order)[kept_in_order])


def _concatenated(blocks: list[_SparseRows]) -> _SparseRows:
    lengths, columns, weights = zip(*blocks, strict=True)
    return _SparseRows(torch.cat(lengths), torch.cat(columns), torch.cat(weights))


def _transposed(matrix: _SparseRows, column_count: int) -> _SparseRows:
    """The transpose, filled a few rows of the matrix at a time so that no sort runs over the whole of it."""
    lengths = torch.bincount(matrix.columns, minlength=column_count)
    next_free = lengths.cumsum(0) - lengths
    rays = torch.empty_like(matrix.columns)
    weights = torch.empty_like(matrix.weights)
    for first_ray, block in _split(matrix):
        block_rays = torch.arange(first_ray, first_ray + len(block.lengths), dtype=rays.dtype, device=rays.device)
        pixel, order = block.columns.sort(stable=True)
        block_lengths = torch.bincount(pixel, minlength=column_count)
        first_in_block = block_lengths.cumsum(0) - block_lengths
        position = torch.arange(len(pixel), device=pixel.device) + (next_free - first_in_block)[pixel]
        rays[position] = block_rays.repeat_interleave(block.lengths)[order]
        weights[position] = block.weights[order]
        next_free += block_lengths
    return _SparseRows(lengths, rays, weights)


def _split(matrix: _SparseRows) -> Iterator[tuple[int, _SparseRows]]:
    """Blocks of rows, each with the number of its first row."""
    rows_per_block = max(1, len(matrix.lengths) * _ENTRIES_PER_BLOCK // max(1, len(matrix.columns)))
    block_lengths = matrix.lengths.split(rows_per_block)
    sizes = [int(lengths.sum()) for lengths in block_lengths]
    blocks = zip(block_lengths, matrix.columns.split(sizes), matrix.weights.split(sizes), strict=True)
    for number, block in enumerate(blocks):
        yield number * rows_per_block, _SparseRows(*block)


def _csr(rows: _SparseRows, shape: tuple[int, ...]) -> torch.Tensor:
    starts = torch.cat([rows.lengths.new_zeros(1), rows.lengths.cumsum(0)]).int()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
        return torch.sparse_csr_tensor(starts, rows.columns, rows.weights, size=shape, check_invariants=False)
