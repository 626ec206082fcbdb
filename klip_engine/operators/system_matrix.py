"""Which form of the system matrix serves a scan best: whole, shared between views, or never stored."""

from __future__ import annotations

import torch

from klip_engine.operators.geometry import ScanGeometry
from klip_engine.operators.joseph import RowBlockMatrix, StoredMatrix, SystemMatrix, estimated_nonzeros
from klip_engine.operators.shared_matrix import SharedMatrix, shared_views

DEFAULT_MATRIX_LIMIT_BYTES = 1_800_000_000
"""Largest system matrix that is stored, its transpose included."""


def system_matrix(
    geometry: ScanGeometry,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    limit_bytes: int = DEFAULT_MATRIX_LIMIT_BYTES,
) -> SystemMatrix:
    """The system matrix of a scan in mm: stored if it fits `limit_bytes`, else rebuilt in every product.

    Views that are turned or mirrored copies of others share their rows (`shared_views`).
    """
    views = len(geometry.view_angles_rad)
    kept = len(shared_views(geometry)[0])
    nonzeros = estimated_nonzeros(geometry) * kept // views
    fits = 2 * nonzeros * (dtype.itemsize + torch.int32.itemsize) <= limit_bytes
    if not fits or nonzeros >= torch.iinfo(torch.int32).max:
        return RowBlockMatrix(geometry, device, dtype)
    return (SharedMatrix if kept < views else StoredMatrix)(geometry, device, dtype)
