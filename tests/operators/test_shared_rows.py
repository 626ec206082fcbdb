"""Views that are turned or mirrored copies share the rows of the system matrix, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

from klip_engine.operators import CTOperator, FanCurvedGeometry, FanFlatGeometry, ParallelGeometry
from klip_engine.operators.joseph import StoredMatrix
from klip_engine.operators.shared_matrix import SharedMatrix, shared_views

SQUARE = {"image_shape": (40, 40), "pixel_spacing_mm": 6.0}


@pytest.mark.parametrize(
    "scan",
    [{}, {"start_deg": 7}, {"arc_deg": 360}, {"detector_offset_bins": 0.25}, {"arc_deg": 200, "start_deg": -3}],
    ids=["usual", "rotated", "full turn", "quarter offset", "part of a turn"],
)
def test_products_equal_those_of_the_whole_matrix(geometry_type, scan, rng):
    geometry = geometry_type.evenly_spaced(48, **SQUARE, **scan)
    whole, shared = (matrix(geometry, "cpu", torch.float64) for matrix in (StoredMatrix, SharedMatrix))
    images = torch.rand(3, 1600, generator=rng, dtype=torch.float64)
    data = torch.rand(3, 48 * geometry.detector_count, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(shared.project(images), whole.project(images))
    torch.testing.assert_close(shared.back_project(data), whole.back_project(data))


@pytest.mark.parametrize(
    ("geometry_type", "scan", "kept"),
    [
        (ParallelGeometry, {}, 13),  # 0 to 45 degrees, both included
        (ParallelGeometry, {"arc_deg": 360, "start_deg": 1}, 12),
        (FanFlatGeometry, {}, 7),
        (FanCurvedGeometry, {"detector_offset_bins": 0.25}, 12),  # mirrored views have other rays
        (FanCurvedGeometry, {"arc_deg": 60, "detector_offset_bins": 0.25}, 48),
        (ParallelGeometry, {"image_centre_mm": (3.0, 0.0)}, 48),
        (ParallelGeometry, {"image_shape": (40, 50)}, 48),
    ],
    ids=["half turn", "turn", "fan", "offset fan", "limited angle", "off-centre", "not square"],
)
def test_how_many_views_keep_rows(geometry_type, scan, kept):
    geometry = geometry_type.evenly_spaced(48, **SQUARE | scan)
    views, copies = shared_views(geometry)
    assert len(views) == kept
    assert sorted(int(view) for copy in copies for view in copy.views) == list(range(48))


def test_repeated_angles_each_keep_their_place(rng):
    fields = {"detector_count": 30, "detector_pitch_mm": 6.0, **SQUARE}
    geometry = ParallelGeometry(view_angles_rad=(0.3, 0.3, 0.3), **fields)
    data = CTOperator(geometry).forward(torch.rand(1, 1, 40, 40, generator=rng))[0]
    torch.testing.assert_close(data[0], data[1])
    torch.testing.assert_close(data[0], data[2])


def test_the_shared_matrix_is_a_fraction(geometry_type):
    geometry = geometry_type.evenly_spaced(48, **SQUARE)
    whole = StoredMatrix(geometry, "cpu", torch.float32).nbytes
    assert CTOperator(geometry).matrix_bytes() < 0.3 * whole
