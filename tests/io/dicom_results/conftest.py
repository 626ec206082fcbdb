"""Cases in every orientation a reader may get wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..dicom_files import AXIAL, CORONAL, SAGITTAL, oblique
from .cases import Case, make_case

GEOMETRIES: dict[str, dict[str, Any]] = {
    "ascending": {"orientation": AXIAL},
    "descending": {"orientation": AXIAL, "descending": True},
    "oblique": {"orientation": oblique()},
    "sagittal": {"orientation": SAGITTAL},
    "coronal descending": {"orientation": CORONAL, "descending": True},
    "one slice": {"shape": (1, 40, 48)},
    "odd size": {"shape": (5, 37, 43), "findings": 3},
}


@pytest.fixture(params=GEOMETRIES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return make_case(tmp_path / "case", **GEOMETRIES[request.param])


@pytest.fixture
def case_with(tmp_path: Path) -> Callable[..., Case]:
    def make(name: str = "case", **options: Any) -> Case:
        return make_case(tmp_path / name, **options)

    return make
