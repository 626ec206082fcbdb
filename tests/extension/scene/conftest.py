"""Scans in a scene, and results of the engine for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from klip_engine.io import read_ct, write_results
from klip_engine.pipeline import detect
from klip_engine.working_grid import WorkingGrid
from tests.conftest import save_wiener_prior
from tests.extension.mrml import Mrml
from tests.pipeline.conftest import WIDE_BLOCKS


def _turned(axis: int, degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.eye(4)
    one, other = [n for n in range(3) if n != axis]
    turn[one, one] = turn[other, other] = np.cos(angle)
    turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
    return turn


OBLIQUE = _turned(2, 20) @ _turned(0, -12) @ np.diag([-3.1, -3.7, 5.3, 1])
OBLIQUE[:3, 3] = (120.25, 390.5, 88.125)
MOVED = _turned(1, 7) @ _turned(2, -11)
MOVED[:3, 3] = (-31.5, 12.25, 47.75)
SETTINGS = replace(WIDE_BLOCKS, sampling=replace(WIDE_BLOCKS.sampling, steps=4), false_alarms=0.1)


def ball_scan(ijk_to_ras: np.ndarray, size=(110, 90, 30), lesion_ijk=(66, 38, 16)) -> np.ndarray:
    """A body as an ellipsoid around the middle of the grid, int16 HU [k, j, i], with a dense ball in it."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in size[::-1]], indexing="ij"), axis=-1)[..., ::-1]
    points = index @ ijk_to_ras[:3, :3].T
    middle = (np.array(size) - 1) / 2 @ ijk_to_ras[:3, :3].T
    lesion = np.array(lesion_ijk) @ ijk_to_ras[:3, :3].T
    hu = np.where((((points - middle) / np.array([150, 120, 400])) ** 2).sum(-1) < 1, 40, -1000)
    hu[((points - lesion) ** 2).sum(-1) < 14**2] = 1500
    return hu.astype(np.int16)


@pytest.fixture
def mrml() -> Iterator[Mrml]:
    mrml = Mrml()
    yield mrml
    mrml.close()


@pytest.fixture
def scan(mrml):
    """An oblique, anisotropic CT below a transform, in a study."""
    return oblique_scan(mrml)


def oblique_scan(mrml: Mrml, name: str = "CT", study: str = "Study 7"):
    node = mrml.add_volume(ball_scan(OBLIQUE), OBLIQUE, name)
    node.SetAndObserveTransformNodeID(mrml.add_transform(MOVED).GetID())
    hierarchy = mrml.hierarchy
    parent = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), study)
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(parent, node), parent)
    return node


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> Path:
    """What the engine wrote for `scan`, handed over as the module does it: out of the scene, into a file."""
    from KLIPLib.export_input import export_input

    folder = tmp_path_factory.mktemp("klip")
    mrml = Mrml()
    export_input(oblique_scan(mrml), folder / "input.nrrd")
    prior = save_wiener_prior(folder / "wiener", WorkingGrid((48, 56), 8.0, 8.0), [SETTINGS])
    write_results(detect(read_ct(folder / "input.nrrd"), prior, SETTINGS), folder / "out")
    return folder / "out"
