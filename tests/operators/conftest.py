"""Scans that the operator tests share."""

from __future__ import annotations

import pytest
import torch

from klip_engine.operators import (
    FanCurvedGeometry,
    FanFlatGeometry,
    ParallelGeometry,
    ScanGeometry,
    matrix_cache,
)

GEOMETRY_TYPES = (ParallelGeometry, FanFlatGeometry, FanCurvedGeometry)


@pytest.fixture(params=GEOMETRY_TYPES, ids=lambda geometry: geometry.kind)
def geometry_type(request: pytest.FixtureRequest) -> type[ScanGeometry]:
    return request.param


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(20240607)


@pytest.fixture(autouse=True)
def _no_matrix_outlives_its_test():
    yield
    matrix_cache.clear()


@pytest.fixture(autouse=True)
def _one_thread():
    """The products here are small: on a busy machine threads would wait for each other and little else."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
