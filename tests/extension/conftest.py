"""What the tests of the module share that need neither slicer-core nor Qt."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXTENSION = Path(__file__).resolve().parents[2] / "KLIPExtension"


@pytest.fixture
def library(monkeypatch) -> Callable[[str], Any]:
    """library("name") is KLIPLib.name, also where there is no Slicer at all."""
    if "slicer" not in sys.modules:
        monkeypatch.setitem(sys.modules, "slicer", types.ModuleType("slicer"))
    monkeypatch.syspath_prepend(str(EXTENSION))
    return lambda name: importlib.import_module(f"KLIPLib.{name}")
