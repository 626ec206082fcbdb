"""Slicer starts and shows results without networks: torch and MONAI are not imported and need not be there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.extension.conftest import EXTENSION

ROOT = EXTENSION.parent
MODULES = sorted(f"KLIPLib.{path.stem}" for path in (EXTENSION / "KLIPLib").glob("*.py") if path.stem != "__init__")
MODULE = ["KLIP"] if (EXTENSION / "KLIP.py").is_file() else []

WITHOUT_NETWORKS = """
import sys
for name in ("torch", "monai", "einops"):
    sys.modules[name] = None  # an import of it raises ModuleNotFoundError
"""

HEAVY_IS_NOT_LOADED = """
heavy = [name for name in ("torch", "monai") if name in sys.modules]
assert not heavy, heavy
"""

ANY_APPLICATION = '''
"""Whatever is imported from the application is there and does nothing: imports alone are looked at."""
import importlib.abc, importlib.machinery, sys, types

class Anything:
    def __init__(self, *arguments, **names): pass
    def __call__(self, *arguments, **names): return Anything()
    def __getattr__(self, name): return Anything()

class Module(types.ModuleType):
    __path__ = []
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Anything,), {}) if name[0].isupper() else Anything()

class Application(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    names = {"slicer", "qt", "ctk", "vtk", "vtkmodules", "DICOMLib", "SampleData", "PyTorchUtils"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec): return Module(spec.name)
    def exec_module(self, module): pass

sys.meta_path.insert(0, Application())
'''


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A fresh Python that finds the engine and the module, as Slicer's does."""
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(EXTENSION), str(ROOT)])}
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)


def succeed(code: str) -> None:
    done = python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["klip_engine", "klip_engine.errors", "klip_engine.demo", "klip_engine.saved"])
def test_what_the_module_uses_of_the_engine_imports_without_networks(name):
    succeed(WITHOUT_NETWORKS + f"import {name}")


def test_reading_and_writing_import_without_networks():
    names = [f"klip_engine.io.{path.stem}" for path in (ROOT / "klip_engine" / "io").glob("*.py")]
    assert "klip_engine.io.sources" in names
    succeed(WITHOUT_NETWORKS + f"import importlib\nfor name in {names!r}: importlib.import_module(name)")


def test_the_command_line_starts_without_loading_networks():
    succeed("import sys, klip_engine.cli" + HEAVY_IS_NOT_LOADED)


def test_the_modules_of_the_extension_import_without_networks():
    assert "KLIPLib.dependencies" in MODULES
    loading = f"import importlib\nfor name in {MODULES + MODULE!r}: importlib.import_module(name)"
    succeed(ANY_APPLICATION + WITHOUT_NETWORKS + loading)


def test_an_engine_without_torch_says_so_and_how_to_get_it(tmp_path):
    run = "import runpy; runpy.run_module('klip_engine', run_name='__main__')"
    source = ROOT / "klip_engine" / "data" / "demo" / "demo_ct.nrrd"
    done = python(WITHOUT_NETWORKS + run, "detect", source, "-o", tmp_path / "out", "--progress", "json")
    event = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == event["exit_code"] == 1
    assert f"the Python package torch is missing in {sys.executable}; install" in event["message"]
    assert list(tmp_path.iterdir()) == []
