"""A made-up detection whose geometry, findings and arrays are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from klip_engine.detection import Detection, Finding, SliceScore, WorkingResult
from klip_engine.volume import CTVolume, Geometry
from klip_engine.working_grid import WorkingGrid, to_working_grid

from ..conftest import torso


def oblique_geometry(size: tuple[int, int, int], spacing: tuple[float, float, float]) -> Geometry:
    angle = np.radians(0.5)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return Geometry(size, spacing, (-201.3, -150.7, 33.1), tuple(turn.ravel()))


def make_detection(findings: int = 2, p_value: float | None = 0.01, **changes: Any) -> Detection:
    """A torso on an oblique anisotropic grid with `findings` square regions, the strongest first."""
    hu = torso(slices=6)
    source = CTVolume(hu, oblique_geometry((hu.shape[2], hu.shape[1], hu.shape[0]), (3.5, 4.0, 5.0)))
    working = to_working_grid(source, WorkingGrid())
    score = np.full(working.hu.shape, 0.25, dtype=np.float32)
    regions = np.zeros(working.hu.shape, dtype=np.uint16)
    table = []
    for label in range(1, findings + 1):
        z, y, x = (label - 1) % 6, 50 + 2 * ((label - 1) // 6), 40 + 2 * label
        value = 9.0 - 0.2 * label
        score[z, y : y + 2, x : x + 2] = value
        regions[z, y : y + 2, x : x + 2] = label
        centre = tuple(float(v) for v in working.geometry.to_lps((x + 0.5, y + 0.5, z)))
        table.append(Finding(label, value, p_value, centre, 0.18, (z, z)))  # type: ignore[arg-type]
    slices = tuple(
        SliceScore(z, float(working.geometry.to_lps((0, 0, z))[2]), float(score[z].max()), p_value)
        for z in range(6)
    )
    values: dict[str, Any] = {
        "working": WorkingResult(
            working.hu, working.hu.copy(), score, regions, working.body, working.geometry, working.source_slices
        ),
        "geometry": source.geometry,
        "source": source,
        "slices": slices,
        "findings": tuple(table),
        "threshold": 1.5,
        "prior": {"name": "default", "hash": "ab12"},
        "settings": {"sampling": {"steps": 20}, "false_alarms": 0.05, "seed": 0},
        "input": {"format": "NRRD", "files": 1, "slices": 6},
        "timing": {"total_s": 12.5, "network_s": 9.0, "network_evaluations": 240},
        "notices": ("First notice.",),
        "null_maxima": (0.5, 1.0, 1.5, 8.7),
    }
    return Detection(**(values | changes))


@pytest.fixture
def detection() -> Detection:
    return make_detection()


@pytest.fixture(scope="session")
def detection_with() -> Callable[..., Detection]:
    return make_detection
