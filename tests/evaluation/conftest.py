"""Grids, a synthetic torso and a small prior for lesion insertion and evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from klip_engine.io.sources import Source
from klip_engine.volume import CTVolume, Geometry
from klip_engine.working_grid import WorkingGrid
from tests.conftest import save_wiener_prior

GRID = WorkingGrid((96, 128), 2.5, 3.0)
"""Of the prior."""
NOISE_HU = 12.0


def rotation(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    """Rodrigues' formula."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def uniform_volume(
    spacing: tuple[float, float, float],
    direction: np.ndarray | None = None,
    *,
    hu: float = 60.0,
    noise_hu: float = 0.0,
    extent_mm: float = 60.0,
) -> CTVolume:
    """A block of one tissue around the LPS origin (-20, 30, 400)."""
    direction = np.eye(3) if direction is None else direction
    size = tuple(round(extent_mm / s) for s in spacing)
    centre_offset = direction @ ((np.array(size) - 1) / 2 * spacing)
    origin = np.array([-20.0, 30.0, 400.0]) - centre_offset
    noise = np.random.default_rng(1).normal(0.0, 1.0, size[::-1]) * noise_hu
    return CTVolume(
        (hu + noise).astype(np.float32), Geometry(size, spacing, tuple(origin), tuple(direction.ravel()))
    )


@pytest.fixture(scope="session")
def torso() -> CTVolume:
    """2 mm pixels, 3 mm slices: body with a liver below (slices 0-11) and two lungs above (12-25)."""
    rows, columns = np.mgrid[:120, :160]
    y, x = (rows - 59.5) / 50, (columns - 79.5) / 70
    fat, liver, lung = -100.0, 110.0, -860.0
    low = np.full((120, 160), -1000.0)
    low[x**2 + y**2 < 1] = fat
    high = low.copy()
    low[((x + 0.35) / 0.5) ** 2 + (y / 0.6) ** 2 < 1] = liver
    high[(x / 0.92) ** 2 + (y / 0.9) ** 2 < 1] = 40.0
    for side in (-1, 1):
        high[((x - side * 0.45) / 0.36) ** 2 + (y / 0.7) ** 2 < 1] = lung
    hu = np.concatenate([np.repeat(low[None], 12, axis=0), np.repeat(high[None], 14, axis=0)])
    hu += np.random.default_rng(0).normal(0.0, NOISE_HU, hu.shape)
    return CTVolume(hu.astype(np.float32), Geometry((160, 120, 26), (2.0, 2.0, 3.0), (-159.0, -119.0, -300.0)))


@pytest.fixture(scope="session")
def prior(tmp_path_factory) -> Path:
    return save_wiener_prior(tmp_path_factory.mktemp("priors") / "wiener", GRID)


@pytest.fixture(scope="session")
def scans(torso, tmp_path_factory) -> tuple[Source, ...]:
    return two_patients(torso, tmp_path_factory.mktemp("scans"))


def two_patients(body: CTVolume, folder: Path) -> tuple[Source, ...]:
    """The same body twice, each with noise of its own; the last slices are not healthy."""
    made = []
    for number in range(2):
        noise = np.random.default_rng(number + 1).normal(0, 5, body.hu.shape)
        path = folder / f"torso-{number}.nrrd"
        sitk.WriteImage(body.geometry.image(np.rint(body.hu + noise).astype(np.int16)), path)
        made.append(Source(path, f"patient {number}", ((0, 20),)))
    return tuple(made)


@pytest.fixture
def quick_null(monkeypatch) -> None:
    """Null distributions and reference slices that cost little."""
    monkeypatch.setattr("klip_engine.evaluation.run.NULL_SLICES_ON_DEMAND", 4)
    monkeypatch.setattr("klip_engine.drawing.DRAW_STEPS", 3)
