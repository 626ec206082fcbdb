"""Exact lengths of rays in the boxes of a pixel image: the projector of simulations.

A ray crosses at most one border between pixels side by side while it passes one pixel along its main axis, so the
lengths of Siddon ("Fast calculation of the exact radiological path for a three-dimensional CT array", Med. Phys.
12(2), 1985, eq. 3 to 13) follow without sorting crossings. Reconstructions interpolate instead (Joseph,
`klip_engine/operators/joseph.py`), on a coarser grid: what is simulated here they cannot reproduce exactly.
"""

from __future__ import annotations

import torch

from klip_engine.operators.geometry import Rays
from klip_engine.operators.main_axis import MainAxis
from klip_engine.operators.sparse_rows import Entries


def exact_entries(rays: Rays, image_shape: tuple[int, int], spacing_mm: float) -> Entries:
    """Lengths in mm (float64) of rays in pixels, and the flat pixel index (int32) each belongs to: two for each
    step along the main axis, as `joseph_entries`. The rays' points are from the middle of the image grid.
    """
    walk = MainAxis.of(rays, image_shape, spacing_mm)
    # Half a pixel on, so that pixel k reaches from k to k + 1.
    enters, leaves = (walk.side_at(walk.steps + end) + 0.5 for end in (-0.5, 0.5))
    low, high = torch.minimum(enters, leaves), torch.maximum(enters, leaves)
    lower = low.floor()
    beyond = (high - lower - 1).clamp_(min=0)
    upper_share = torch.where(beyond > 0, beyond / (high - low), 0.0)
    return walk.entries(lower, 1 - upper_share, upper_share)
