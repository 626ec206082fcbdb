"""The Python console: three lines do the whole job, with the real engine in a real process."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tests.extension.mrml import array_of, slicer, vtk
from tests.extension.panel.conftest import GEOMETRY, QUICK, ct_voxels, gone, left_in, wait_for


def test_three_lines_do_the_whole_job(logic, ct, tiny_prior, temporary):
    told = []
    result = logic.process(ct, falseAlarms=0.3, prior=str(tiny_prior), progress=told.append, **QUICK)
    written = sitk.GetArrayFromImage(sitk.ReadImage(result.folder / "regions.nrrd"))
    np.testing.assert_array_equal(array_of(result.regions), written)
    findings = json.loads((result.folder / "findings.json").read_text())
    assert findings["settings"]["false_alarms"] == 0.3
    assert findings["settings"]["seed"] == 3
    assert findings["settings"]["sampling"]["steps"] == 4
    assert result.findings.GetTable().GetNumberOfRows() == len(findings["findings"])
    assert result.input_node is ct
    assert told[-1].stage == "reconstructing"
    assert told[-1].done == told[-1].total
    # what is left on the disk are the results: no copy of the patient's voxels, no output
    runs = list((temporary / "KLIP").iterdir())
    assert [left_in(run)[0] for run in runs] == ["results"]
    assert "input.nrrd" not in left_in(runs[0])


def test_the_engine_sees_the_voxels_of_the_scene(logic, ct, slicer_python, results, monkeypatch):
    """The file it gets, read by SimpleITK: HU and place."""
    from KLIPLib import detection_run

    seen = []
    command = detection_run.detect_command
    monkeypatch.setattr(
        detection_run,
        "detect_command",
        lambda python, source, *rest: (seen.append(sitk.ReadImage(str(source))), command(python, source, *rest))[1],
    )
    slicer_python("copy", results)
    logic.process(ct)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(seen[0]), ct_voxels())
    np.testing.assert_allclose(seen[0].GetOrigin(), GEOMETRY.origin)


def test_with_callbacks_it_returns_at_once(logic, ct, slicer_python, results):
    slicer_python("copy", results)
    done, failed = [], []
    run = logic.process(ct, done=done.append, failed=failed.append)
    assert run.running
    wait_for(lambda: done)
    assert done[0] is run.result
    assert failed == []
    assert array_of(run.result.regions).shape == ct_voxels().shape


def test_a_failed_run_raises_the_engines_sentence(logic, temporary):
    from KLIPLib.outcome import EngineError

    with pytest.raises(EngineError, match=r"no-such-file\.nrrd.*\.$") as raised:
        logic.process("/somewhere/no-such-file.nrrd")
    assert raised.value.exit_code == 3
    assert "--false-alarms" in raised.value.log
    assert left_in(temporary) == ["KLIP"]


def test_a_refused_setting_raises_the_parsers_sentence(logic, ct):
    from KLIPLib.outcome import EngineError

    with pytest.raises(EngineError, match="nonsense") as raised:
        logic.process(ct, preset="nonsense")
    assert raised.value.exit_code == 2


def test_cancelling_leaves_the_scene_and_the_disk_as_they_were(logic, ct, mrml, slicer_python, temporary):
    from KLIPLib.outcome import EngineCancelled

    slicer_python("slow")
    before, told = mrml.identities(), []
    run = logic.process(ct, progress=told.append, failed=told.append)
    wait_for(lambda: told)
    assert any("input.nrrd" in name for name in left_in(temporary))
    run.cancel()
    wait_for(lambda: not run.running)
    assert isinstance(told[-1], EngineCancelled)
    with pytest.raises(EngineCancelled):
        run.wait()
    assert mrml.identities() == before
    assert left_in(temporary) == ["KLIP"]


def test_the_real_engine_is_cancelled_within_moments(logic, mrml, temporary, tiny_prior):
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ GEOMETRY.matrix
    long = mrml.add_volume(np.repeat(ct_voxels(), 100, axis=0), to_ras, "long")
    before, told = mrml.identities(), []
    run = logic.process(long, prior=str(tiny_prior), progress=told.append, failed=told.append, **QUICK)
    wait_for(lambda: told)
    engine = run._run._tree.pid
    run.cancel()
    wait_for(lambda: not run.running, 30)
    gone(str(engine))
    assert run.error.exit_code in (4, -signal.SIGKILL)  # by itself, or at the end of its grace where it is slow
    assert mrml.identities() == before
    assert left_in(temporary) == ["KLIP"]


def test_nothing_of_a_result_outlives_its_scene(module, ui, ct, mrml, views, slicer_python, results):
    """Hundreds of megabytes of voxels go with the nodes: no run, timer or panel holds them."""
    import gc

    slicer_python("copy", results)
    ui.inputSelector.setCurrentNode(ct)
    ui.applyButton.click()
    wait_for(lambda: module.panel.results.result is not None)
    module.logic.process(ct)
    held = []
    for index in range(mrml.scene.GetNumberOfNodesByClass("vtkMRMLLabelMapVolumeNode")):
        held.append(vtk.vtkWeakReference())
        held[-1].Set(mrml.scene.GetNthNodeByClass(index, "vtkMRMLLabelMapVolumeNode"))
    assert [one.Get() is None for one in held] == [False, False]
    mrml.scene.Clear(False)
    wait_for(lambda: gc.collect() >= 0 and all(one.Get() is None for one in held), 5)


def test_a_logic_of_the_console_is_kept_by_its_runs_alone(app, ct, mrml, slicer_python, results):
    import gc
    import weakref

    import KLIP

    slicer_python("slow")
    told = []
    logic = KLIP.KLIPLogic()
    detector = weakref.ref(logic.detector)
    run = logic.process(ct, failed=told.append)
    del logic
    gc.collect()
    app.aboutToQuit.emit()
    assert len(told) == 1
    assert not run.running
    del run
    told.clear()
    wait_for(lambda: gc.collect() >= 0 and detector() is None, 5)
    mrml.scene.Clear(False)  # whoever is gone is not called


def test_closing_the_scene_ends_its_runs(logic, ct, mrml, slicer_python, temporary, tmp_path, monkeypatch):
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    slicer_python("tree")
    told = []
    run = logic.process(ct, progress=told.append, failed=told.append)
    wait_for(lambda: told)
    mrml.scene.Clear(False)
    assert not run.running
    gone((tmp_path / "pids").read_text())
    assert mrml.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert left_in(temporary) == ["KLIP"]


def test_two_runs_do_not_mix(logic, ct, mrml, slicer_python, results):
    other = mrml.add_volume(ct_voxels(), np.diag([-1.0, -1.0, 1.0, 1.0]) @ GEOMETRY.matrix, "other")
    slicer_python("copy", results)
    one_done, other_done = [], []
    one = logic.process(ct, done=one_done.append)
    two = logic.process(other, done=other_done.append)
    assert len(logic.detector.running) == 2
    wait_for(lambda: one_done and other_done)
    assert one.result.input_node is ct
    assert two.result.input_node is other
    assert one.result.folder != two.result.folder
    assert logic.detector.running == []


def test_an_input_removed_during_the_run_does_not_lose_the_result(logic, ct, mrml, slicer_python, results):
    slicer_python("copy", results)
    done = []
    logic.process(ct, done=done.append)
    mrml.scene.RemoveNode(ct)
    wait_for(lambda: done)
    assert done[0].input_node is None
    assert array_of(done[0].regions).shape == ct_voxels().shape


def test_a_projection_file_is_handed_over_as_it_is(logic, slicer_python, results, tmp_path):
    """Also in a loop, as for the studies of a folder, and with results kept in a folder of the user's."""
    slicer_python("copy", results)
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("one scan.h5", "two.mat"):
        (tmp_path / name).write_bytes(b"projections")
        logs = []
        result = logic.process(tmp_path / name, resultsFolder=kept, progress=logs.append)
        assert result.folder.parent == kept
        assert result.input_node is None
    assert len(list(kept.iterdir())) == 2


def test_a_done_without_results_is_a_failure(logic, ct, mrml, slicer_python, temporary):
    from KLIPLib.outcome import EngineError

    slicer_python("vanish")
    before = mrml.identities()
    with pytest.raises(EngineError, match="holds no results"):
        logic.process(ct)
    assert mrml.identities() == before
    assert left_in(temporary) == ["KLIP"]


def test_results_of_another_volume_do_not_enter_the_scene(logic, mrml, slicer_python, results):
    from KLIPLib.outcome import EngineError

    small = mrml.add_volume(np.zeros((3, 4, 5), np.int16), np.eye(4), "small")
    slicer_python("copy", results)
    before = mrml.identities()
    with pytest.raises(EngineError, match="voxels"):
        logic.process(small)
    assert mrml.identities() == before


def test_a_volume_the_engine_cannot_take_is_said_at_once(logic, mrml, temporary):
    from klip_engine.errors import InputError

    empty = mrml.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    with pytest.raises(InputError, match="empty holds no voxels"):
        logic.process(empty)
    assert left_in(temporary) == ["KLIP"]


def test_another_python_environment_runs_the_engine(logic, ct, slicer_python, results, tmp_path):
    """The user's own, with the environment of programs outside Slicer."""
    slicer_python("3")  # Slicer's own would fail
    folder = tmp_path / "own" / "bin"
    folder.mkdir(parents=True)
    slicer_python("copy", results)
    Path(tmp_path / "bin" / "PythonSlicer").rename(folder / "python3")
    slicer_python("3")
    result = logic.process(ct, python=str(tmp_path / "own"))
    assert array_of(result.regions).shape == ct_voxels().shape


def test_missing_packages_are_said_before_anything_runs(logic, ct, temporary, monkeypatch):
    from dataclasses import replace

    def lacking() -> None:
        raise RuntimeError("PyTorch is not installed; install the PyTorch extension")

    monkeypatch.setattr(logic.detector, "host", replace(logic.detector.host, ensure_dependencies=lacking))
    with pytest.raises(RuntimeError, match="install the PyTorch extension"):
        logic.process(ct)
    assert left_in(temporary) == []


def test_nothing_heavy_is_loaded_with_the_module(app):
    """In a process of its own: Slicer's start (the import) loads nothing, opening the panel no PyTorch."""
    import subprocess
    import sys

    code = (
        "import sys, pytest\n"
        "from pathlib import Path\n"
        "from PySide6 import QtWidgets\n"
        "from tests.extension.mrml import Mrml\n"
        "from tests.extension.panel import slicer_app\n"
        "application = QtWidgets.QApplication([])\n"
        "slicer_app.install(pytest.MonkeyPatch(), Mrml(), Path('/nowhere'))\n"
        "import KLIP\n"
        "heavy = lambda: sorted({'torch', 'monai', 'SimpleITK', 'pydicom', 'highdicom'} & set(sys.modules))\n"
        "print(heavy())\n"
        "widget = KLIP.KLIPWidget()\n"
        "widget.setup()\n"
        "print(heavy())\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.stdout.splitlines() == ["[]", "['SimpleITK']"], said.stderr


def test_setting_the_layers_as_documented(logic, ct, mrml, slicer_python, results):
    view = mrml.add_slice_view("Red", "Axial")
    slicer_python("copy", results)
    result = logic.process(ct)
    composite = view.GetSliceCompositeNode()
    composite.SetLabelVolumeID(result.regions.GetID())
    assert slicer.util.getNode(composite.GetLabelVolumeID()) is result.regions
