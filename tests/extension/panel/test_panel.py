"""The panel, driven like a user: choose, Apply, watch, Cancel, close the scene."""

from __future__ import annotations

import json
import types

import pytest
from PySide6 import QtCore, QtTest, QtWidgets

from klip_engine.detection import NOTICE
from tests.extension.panel.conftest import QUICK, gone, left_in, wait_for


def test_choose_apply_watch_and_see(module, ui, ct, views, tiny_prior):
    """With the real engine."""
    assert not ui.applyButton.enabled
    ui.inputSelector.setCurrentNode(ct)
    ui.ownPriorRadio.click()
    ui.priorFolderEdit.edit.setText(str(tiny_prior))
    ui.presetBox.setCurrentIndex(1)
    ui.stepsBox.setValue(QUICK["steps"])
    ui.samplesBox.setValue(QUICK["samples"])
    ui.seedBox.setValue(QUICK["seed"])
    assert ui.applyButton.enabled
    said = []
    ui.applyButton.click()
    run = module.panel.runs.run
    assert ui.progressBar.visible
    assert not ui.applyButton.enabled
    assert ui.cancelButton.enabled
    assert ui.statusLabel.text.startswith("Starting the engine · 0:00 elapsed")
    wait_for(lambda: said.append((ui.statusLabel.text, ui.progressBar.value)) or not run.running, 60)
    assert any(text.startswith("Reconstructing and scoring the slices · 0:") for text, _ in said)
    values = [value for _, value in said]
    assert values == sorted(values)
    assert values[-1] == 1000
    assert not ui.progressBar.visible
    assert ui.applyButton.enabled
    assert not ui.cancelButton.enabled
    findings = json.loads((run.result.folder / "findings.json").read_text())["findings"]
    assert ui.findingsTable.rowCount == len(findings)
    assert views["Red"].GetSliceCompositeNode().GetLabelVolumeID() == run.result.regions.GetID()
    assert "done: out" in ui.logText.toPlainText()
    assert "-m klip_engine detect" in ui.logText.toPlainText()


def test_what_slicer_shows_of_the_module(app, monkeypatch):
    """Title, category and help; the sample is registered when Slicer has started."""
    import KLIP
    from KLIPLib import sample_data

    registered = []
    monkeypatch.setattr(sample_data, "register", lambda: registered.append(True))
    parent = types.SimpleNamespace()
    module = KLIP.KLIP(parent)
    assert parent.title == "KLIP: suspicious regions in CT"
    assert parent.categories == ["Quantification"]
    assert "not a medical device" in parent.helpText
    assert registered == []
    app.startupCompleted.emit()
    assert registered == [True]
    assert module.parent is parent


def test_the_notice_is_always_there(ui, finished):
    assert ui.noticeLabel.text == NOTICE
    assert ui.noticeLabel.visible


def test_apply_says_why_it_cannot(ui, ct, mrml, tmp_path):
    def said() -> str:
        assert not ui.applyButton.enabled
        assert ui.applyButton.toolTip == ui.reasonLabel.text
        assert ui.reasonLabel.visible
        return ui.reasonLabel.text

    assert said() == "Load a CT and choose its volume as input."
    empty = mrml.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    ui.inputSelector.setCurrentNode(empty)
    assert said() == "Empty holds no voxels; load its image or choose another volume."
    ui.fileRadio.click()
    assert said() == "Choose the projection file to look at."
    ui.inputFileEdit.edit.setText("/no/such/file.h5")
    assert said() == "There is no file /no/such/file.h5; choose another projection file."
    ui.inputFileEdit.edit.setText(str(tmp_path))
    assert ui.applyButton.enabled
    ui.ownPriorRadio.click()
    assert "folder of the prior" in said()
    ui.priorFolderEdit.edit.setText(str(tmp_path))
    assert "is no prior" in said()
    ui.defaultPriorRadio.click()
    ui.pythonEdit.edit.setText("/no/python")
    assert "there is no Python in /no/python" in said()
    ui.pythonEdit.edit.setText("")
    ui.resultsFolderEdit.edit.setText("/no/folder")
    assert "no folder /no/folder" in said()
    ui.resultsFolderEdit.edit.setText("")
    ui.volumeRadio.click()
    ui.inputSelector.setCurrentNode(ct)
    assert ui.applyButton.enabled
    assert not ui.reasonLabel.visible


def test_what_is_set_is_what_the_engine_is_told(module, ui, ct, monkeypatch):
    told = []
    monkeypatch.setattr(
        module.logic.detector, "detect", lambda source, settings, **more: told.append((source, settings, more))
    )
    ui.inputSelector.setCurrentNode(ct)
    ui.rateSlider.setValue(3)
    ui.presetBox.setCurrentIndex(2)
    ui.operatorBox.setCurrentIndex(3)
    ui.viewsBox.setValue(24)
    ui.samplerBox.setCurrentIndex(2)
    ui.deviceBox.setCurrentIndex(1)
    ui.pythonEdit.edit.setText("")
    ui.applyButton.click()
    source, settings, more = told[0]
    assert source is ct
    assert (settings.false_alarms, settings.preset, settings.operator) == (0.05, "sparse-24", "fan-flat")
    assert (settings.views, settings.sampler, settings.device) == (24, "dps", "cpu")
    assert (settings.steps, settings.samples, settings.seed, settings.prior) == (None, None, None, "")
    assert (more["python"], more["results_folder"]) == ("", "")


@pytest.mark.parametrize(
    ("step", "words"),
    [(0, "On 1 of 200 healthy slices"), (3, "On 1 of 20 healthy slices"), (6, "On 3 of 10 healthy slices")],
)
def test_the_rate_is_said_in_words(ui, step, words):
    ui.rateSlider.setValue(step)
    assert ui.rateLabel.text.startswith(words)


def test_cancel_leaves_everything_as_it_was(module, ui, ct, mrml, slicer_python, temporary, tmp_path, monkeypatch):
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    slicer_python("tree")
    ui.inputSelector.setCurrentNode(ct)
    before = mrml.identities()
    ui.applyButton.click()
    wait_for(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
    ui.cancelButton.click()
    assert ui.statusLabel.text == "Stopping…"
    assert not ui.cancelButton.enabled
    wait_for(lambda: not module.panel.runs.running)
    assert ui.statusLabel.text == "The run was cancelled; the scene is as it was."
    assert not ui.showLogButton.visible
    assert mrml.identities() == before
    gone((tmp_path / "pids").read_text())
    assert left_in(temporary) == ["KLIP"]
    assert ui.applyButton.enabled


def test_a_failed_run_shows_the_sentence_and_the_log(module, ui, ct, mrml, slicer_python):
    slicer_python("5")
    ui.inputSelector.setCurrentNode(ct)
    before = mrml.identities()
    ui.applyButton.click()
    wait_for(lambda: not module.panel.runs.running)
    assert ui.statusLabel.text == "Scan.nrrd ended with 5; try another."
    assert ui.statusLabel.visible
    ui.showLogButton.click()
    assert not ui.logButton.collapsed
    assert ui.logText.visible
    assert "ended with 5" in ui.logText.toPlainText()
    assert mrml.identities() == before
    slicer_python("killed")
    ui.applyButton.click()
    wait_for(lambda: not module.panel.runs.running)
    assert "Out of memory?" in ui.statusLabel.text
    assert "ended with 5" not in ui.logText.toPlainText()


def test_what_keeps_a_run_from_starting_is_said(module, ui, ct, monkeypatch):
    def refuse(*arguments, **more):
        raise RuntimeError("PyTorch is missing; install the PyTorch extension.")

    monkeypatch.setattr(module.logic.detector, "detect", refuse)
    ui.inputSelector.setCurrentNode(ct)
    ui.applyButton.click()
    assert ui.statusLabel.text == "PyTorch is missing; install the PyTorch extension."
    assert ui.applyButton.enabled


def test_a_hundred_messages_a_second_leave_the_panel_quick(module, ui, ct, slicer_python, results):
    """A click in the middle of the stream is answered; what is shown is the newest."""
    slicer_python("steady", results)
    ui.inputSelector.setCurrentNode(ct)
    ui.applyButton.click()
    wait_for(lambda: ui.progressBar.value > 100)
    QtTest.QTest.mouseClick(ui.logButton, QtCore.Qt.MouseButton.LeftButton, pos=QtCore.QPoint(20, 10))
    assert not ui.logButton.collapsed
    wait_for(lambda: not module.panel.runs.running)
    assert ui.progressBar.value == 995
    assert module.panel.results.result is not None


def test_closing_the_scene_during_a_run_ends_it(
    module, ui, ct, mrml, slicer_python, temporary, tmp_path, monkeypatch
):
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    slicer_python("tree")
    ui.inputSelector.setCurrentNode(ct)
    ui.rateSlider.setValue(1)
    ui.applyButton.click()
    wait_for(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
    mrml.scene.Clear(False)
    assert not module.panel.runs.running
    gone((tmp_path / "pids").read_text())
    assert left_in(temporary) == ["KLIP"]
    assert ui.reasonLabel.text == "Load a CT and choose its volume as input."
    assert ui.rateSlider.value == 5  # a new scene, a new default


def test_quitting_ends_the_run(module, ui, ct, app, slicer_python):
    slicer_python("slow")
    ui.inputSelector.setCurrentNode(ct)
    ui.applyButton.click()
    wait_for(lambda: ui.progressBar.value >= 0)
    app.aboutToQuit.emit()
    assert not module.panel.runs.running


def test_no_scene_says_which_python_is_run(module, ui, mrml, tmp_path):
    """The environment is this user's on this computer: it is in no scene file, and comes from none."""
    ui.pythonEdit.edit.setText(str(tmp_path))
    node = module.logic.getParameterNode().parameterNode
    assert str(tmp_path) not in " ".join(node.GetParameter(name) for name in node.GetParameterNames())
    mrml.scene.Clear(False)
    assert ui.pythonEdit.currentPath == str(tmp_path)
    assert module.logic.detector.host.own_python() == str(tmp_path)
    module.logic.getParameterNode().parameterNode.SetParameter("pythonEnvironment", "/of/someone/else")
    ui.pythonEdit.edit.setText("")
    assert module.logic.detector.host.own_python() == ""


def test_a_result_is_no_input(ui, finished):
    ui.inputSelector.setCurrentNode(finished.reconstruction)
    assert not ui.applyButton.enabled
    assert "is itself a result of KLIP; choose the CT" in ui.reasonLabel.text


def test_apply_while_packages_are_installed_starts_nothing_more(module, ui, ct, monkeypatch):
    """slicer.packaging shows its progress in a window of its own, and lets the event loop run."""
    started = []

    def install_slowly(*arguments, **more):
        started.append(True)
        ui.applyButton.click()
        raise RuntimeError("PyTorch could not be installed")

    monkeypatch.setattr(module.logic.detector, "detect", install_slowly)
    ui.inputSelector.setCurrentNode(ct)
    ui.applyButton.click()
    assert started == [True]
    ui.applyButton.click()
    assert started == [True, True]


def test_names_are_shown_as_they_are(ui, mrml):
    """A series is called what its scanner says; nothing of it is taken for HTML."""
    empty = mrml.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", '<img src="x"> <b>Chest</b>')
    ui.inputSelector.setCurrentNode(empty)
    assert "<b>Chest</b>" in ui.reasonLabel.text
    for name, label in vars(ui).items():
        if isinstance(label, QtWidgets.QLabel) and (not label.text or name == "reasonLabel"):
            assert label.textFormat() == QtCore.Qt.TextFormat.PlainText, name


def test_the_cursor_says_when_a_moment_is_taken(module, ui, finished, monkeypatch):
    from KLIPLib import result_panel

    seen = []
    monkeypatch.setattr(
        result_panel, "set_rate", lambda *_: seen.append(QtWidgets.QApplication.overrideCursor().shape())
    )
    ui.rateSlider.setValue(0)
    assert seen == [QtCore.Qt.CursorShape.WaitCursor]
    assert QtWidgets.QApplication.overrideCursor() is None


def test_what_the_engine_doubts_is_said_while_it_runs(module, ui, slicer_python, tmp_path):
    (tmp_path / "scan.h5").write_bytes(b"projections")
    slicer_python("doubtful")
    ui.fileRadio.click()
    ui.inputFileEdit.edit.setText(str(tmp_path / "scan.h5"))
    ui.applyButton.click()
    wait_for(lambda: "Warning: The detector is mirrored." in ui.statusLabel.text)
    assert "elapsed" in ui.statusLabel.text
    assert module.panel.runs.running
    ui.cancelButton.click()
    wait_for(lambda: not module.panel.runs.running)
    slicer_python("slow")
    ui.applyButton.click()
    wait_for(lambda: "Reconstructing" in ui.statusLabel.text)
    assert "mirrored" not in ui.statusLabel.text
    ui.cancelButton.click()
    wait_for(lambda: not module.panel.runs.running)


def test_the_geometry_is_trusted_on_request_only(module, ui, ct, monkeypatch):
    told = []
    monkeypatch.setattr(module.logic.detector, "detect", lambda source, settings, **more: told.append(settings))
    ui.inputSelector.setCurrentNode(ct)
    ui.applyButton.click()
    ui.trustGeometryBox.click()
    ui.applyButton.click()
    assert [settings.trust_geometry for settings in told] == [False, True]
