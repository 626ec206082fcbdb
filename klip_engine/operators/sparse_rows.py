"""Sparse matrices of rays and pixels, row after row: made in blocks, joined, transposed, given to torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch

ENTRIES_PER_BLOCK = 2_000_000
"""Nonzeros worked on at a time: more would leave the processor's cache and take memory."""


class Entries(NamedTuple):
    """The nonzeros of some rows, padded to equal length with weight 0 at pixel 0; both [rays, entries]."""

    pixel: torch.Tensor
    weight: torch.Tensor


class SparseRows(NamedTuple):
    """Nonzeros row after row and, within a row, by column."""

    lengths: torch.Tensor
    """Nonzeros per row, int64."""
    columns: torch.Tensor
    """Of every nonzero, int32."""
    weights: torch.Tensor


def compress(entries: Entries, dtype: torch.dtype) -> SparseRows:
    """Without the padding, in ascending order of the pixels."""
    weight = entries.weight.to(dtype)
    kept = weight > 0
    beyond_last = torch.iinfo(torch.int32).max
    pixel, order = torch.where(kept, entries.pixel, beyond_last).sort(dim=1)
    kept_in_order = pixel != beyond_last
    return SparseRows(kept.sum(dim=1), pixel[kept_in_order], weight.gather(1, order)[kept_in_order])


def concatenated(blocks: list[SparseRows]) -> SparseRows:
    """One below the other."""
    lengths, columns, weights = zip(*blocks, strict=True)
    return SparseRows(torch.cat(lengths), torch.cat(columns), torch.cat(weights))


def transposed(matrix: SparseRows, column_count: int) -> SparseRows:
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
    return SparseRows(lengths, rays, weights)


def csr_tensor(rows: SparseRows, shape: tuple[int, ...]) -> torch.Tensor:
    """As a tensor of compressed sparse rows with 32-bit indices."""
    starts = torch.cat([rows.lengths.new_zeros(1), rows.lengths.cumsum(0)]).int()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
        return torch.sparse_csr_tensor(starts, rows.columns, rows.weights, size=shape, check_invariants=False)


def _split(matrix: SparseRows) -> Iterator[tuple[int, SparseRows]]:
    """Blocks of rows, each with the number of its first row."""
    rows_per_block = max(1, len(matrix.lengths) * ENTRIES_PER_BLOCK // max(1, len(matrix.columns)))
    block_lengths = matrix.lengths.split(rows_per_block)
    sizes = [int(lengths.sum()) for lengths in block_lengths]
    blocks = zip(block_lengths, matrix.columns.split(sizes), matrix.weights.split(sizes), strict=True)
    for number, block in enumerate(blocks):
        yield number * rows_per_block, SparseRows(*block)
