"""The module in a stand-in of Slicer, driven like a user does."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import pytest

pytest.importorskip("PySide6", reason="needs PySide6: pip install 'klip-engine[extension-test]'")
import numpy as np
from PySide6 import QtTest, QtWidgets

from klip_engine.io import write_results
from klip_engine.pipeline import detect
from klip_engine.presets import choose_settings
from klip_engine.volume import CTVolume, Geometry
from klip_engine.working_grid import WorkingGrid
from tests.conftest import save_wiener_prior, torso
from tests.extension.mrml import Mrml, slicer
from tests.extension.panel import slicer_app
from tests.pipeline.conftest import WIDE_BLOCKS

QUICK = {"preset": "fast", "samples": 2, "steps": 4, "device": "cpu", "seed": 3}
FAKE = Path(__file__).with_name("fake_engine.py")
GEOMETRY = Geometry((120, 96, 4), (4.0, 4.0, 5.0), (-240.0, -190.0, 30.0))


def ct_voxels() -> np.ndarray:
    """A torso with something dense in it, int16 HU [z, y, x]."""
    hu = torso(4)
    hu[2, 46:50, 58:62] = 1800
    return hu.astype(np.int16)


@pytest.fixture(scope="session")
def qt_application():
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication([])


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("panel-prior") / "wiener"
    return save_wiener_prior(folder, WorkingGrid((48, 56), 8.0, 5.0), (WIDE_BLOCKS, choose_settings(**QUICK)))


@pytest.fixture(scope="session")
def results(tmp_path_factory, tiny_prior) -> Path:
    """What the engine writes for `ct_voxels`."""
    folder = tmp_path_factory.mktemp("panel-results") / "results"
    write_results(detect(CTVolume(ct_voxels().astype(np.float32), GEOMETRY), tiny_prior, WIDE_BLOCKS), folder)
    return folder


@pytest.fixture
def mrml():
    """A scene; its logics go in the reverse order they came in: a slice view must not outlive the colours."""
    mrml = Mrml()
    yield mrml
    while mrml._logics:
        mrml._logics.pop()


@pytest.fixture
def ct(mrml):
    """The same CT as a volume of the scene."""
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ GEOMETRY.matrix
    return mrml.add_volume(ct_voxels(), to_ras, "Müller, CT 1")


@pytest.fixture
def temporary(tmp_path) -> Path:
    """Slicer's folder for temporary files; runs use KLIP in it."""
    return tmp_path / "temporary"


@pytest.fixture
def slicer_python(tmp_path, monkeypatch) -> Callable[..., None]:
    """Sets what PythonSlicer is: the real interpreter, or a fake engine that does `what`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def become(what: str | None = None, results: Path | str = "none") -> None:
        words = [sys.executable] if what is None else [sys.executable, str(FAKE), what, str(results)]
        program = folder / "PythonSlicer"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        program.chmod(0o755)

    become()
    return become


def behind_launcher(folder: Path, *words: str) -> Path:
    """A program that starts another one as PythonSlicer does: keeps standard input, and ends at once when asked."""
    program = folder / "launcher"
    program.write_text(
        f'#!/bin/sh\nmkfifo "{folder}/held" && exec 9<>"{folder}/held"\n{shlex.join(words)} "$@" <&9\nexit $?\n',
        encoding="utf-8",
    )
    program.chmod(0o755)
    return program


@pytest.fixture
def app(qt_application, monkeypatch, mrml, temporary, slicer_python):
    """slicer.app and all that belongs to it."""
    app = slicer_app.install(monkeypatch, mrml, temporary)
    from KLIPLib import slicer_host

    monkeypatch.setattr(slicer_host, "_ensure_dependencies", lambda: None)
    return app


@pytest.fixture
def logic(app):
    import KLIP

    logic = KLIP.KLIPLogic()
    yield logic
    logic.cleanup()


@pytest.fixture
def module(app):
    """The opened module: a KLIPWidget."""
    import KLIP

    widget = KLIP.KLIPWidget()
    widget.setup()
    widget.parent.resize(460, 1000)
    widget.parent.show()
    yield widget
    widget.cleanup()
    widget.panel.ui.inputSelector.setMRMLScene(None)
    widget.parent.hide()


@pytest.fixture
def ui(module):
    return module.panel.ui


@pytest.fixture
def views(mrml):
    """Red, Yellow, Green: views that show layers and jump."""
    orientations = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(mrml.scene)
    return {name: mrml.add_slice_view(name, how) for name, how in orientations.items()}


@pytest.fixture
def finished(module, ui, ct, views, slicer_python, results):
    """A run that has brought its result."""
    slicer_python("copy", results)
    ui.inputSelector.setCurrentNode(ct)
    ui.applyButton.click()
    wait_for(lambda: not module.panel.runs.running)
    assert module.panel.results.result is not None, ui.statusLabel.text
    return module.panel.results.result


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Let Qt work until something is the case."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        QtTest.QTest.qWait(20)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: str) -> None:
    """Processes, by their numbers, have ended; the kernel may take a moment with those that are nobody's child."""
    until = time.monotonic() + 2
    while any(alive(int(pid)) for pid in pids.split()):
        assert time.monotonic() < until, "a process is still there"
        time.sleep(0.01)


def left_in(folder: Path) -> list[str]:
    """Files and folders below a folder, by their path in it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []
