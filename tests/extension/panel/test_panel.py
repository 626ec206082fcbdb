"""The panel, driven like a user: choose, Apply, watch, Cancel, other rates, click a finding, close the scene."""

from __future__ import annotations

import json
import types
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import vtk
from PySide6 import QtCore, QtTest

from klip_engine.detection import NOTICE
from klip_engine.saved import open_results
from tests.extension.mrml import array_of, slicer
from tests.extension.panel.conftest import QUICK, gone, left_in, wait_for


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


def texts(table, row: int) -> list[str]:
    return [table.item(row, column).text() for column in range(table.columnCount)]


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


def test_another_rate_marks_again_without_a_run(module, ui, finished, mrml):
    nodes = mrml.identities()
    for step, rate in [(7, 0.5), (0, 0.005), (4, 0.1)]:
        ui.rateSlider.setValue(step)
        expected = open_results(finished.folder).at(rate)
        np.testing.assert_array_equal(array_of(finished.regions), expected.regions)
        assert ui.findingsTable.rowCount == len(expected.findings)
    assert not module.panel.runs.running
    assert mrml.identities() == nodes


def test_a_rate_changed_during_the_run_counts_when_it_ends(module, ui, ct, views, slicer_python, results):
    slicer_python("copy", results)
    ui.inputSelector.setCurrentNode(ct)
    ui.applyButton.click()
    ui.rateSlider.setValue(7)
    wait_for(lambda: not module.panel.runs.running)
    expected = open_results(results).at(0.5)
    np.testing.assert_array_equal(array_of(module.panel.results.result.regions), expected.regions)


def test_without_its_folder_a_result_stays_and_says_so(ui, finished):
    import shutil

    before = array_of(finished.regions).copy()
    shutil.rmtree(finished.folder)
    del finished.__dict__["saved"]  # as after the scene was read again
    ui.rateSlider.setValue(0)
    assert ui.rateNoteLabel.text.startswith("Counts for the next run")
    np.testing.assert_array_equal(array_of(finished.regions), before)


def test_a_click_on_a_finding_brings_all_views_there(ui, finished, views):
    ui.rateSlider.setValue(7)
    findings = open_results(finished.folder).at(0.5).findings
    assert len(findings) >= 1
    row = len(findings) - 1
    ui.findingsTable.cellClicked.emit(row, 1)
    x, y, z = findings[row].centroid_lps_mm
    where = {"Red": (2, z), "Yellow": (0, -x), "Green": (1, -y)}
    for name, (axis, expected) in where.items():
        matrix = views[name].GetSliceNode().GetSliceToRAS()
        assert matrix.GetElement(axis, 3) == pytest.approx(expected, abs=1e-3)
    first, last = findings[row].slice_range
    slices = str(first) if first == last else f"{first}–{last}"
    assert texts(ui.findingsTable, row)[0] == str(findings[row].label)
    assert texts(ui.findingsTable, row)[-1] == slices
    assert float(texts(ui.findingsTable, row)[2]) == pytest.approx(findings[row].score, rel=0.01)


def test_a_click_on_the_curve_jumps_to_the_slice(ui, finished, views, app):
    ui.curveButton.click()
    ui.curveButton.click()  # shown twice, told once
    series, points, chosen = vtk.vtkStringArray(), vtk.vtkCollection(), vtk.vtkIdTypeArray()
    series.InsertNextValue(finished.curve.GetID())
    chosen.InsertNextValue(1)
    points.AddItem(chosen)
    app.plots.dataSelected.emit(series, points)
    slices = json.loads((finished.folder / "findings.json").read_text())["slices"]
    heights = sorted(entry["position_mm"] for entry in slices)
    assert views["Red"].GetSliceNode().GetSliceToRAS().GetElement(2, 3) == pytest.approx(heights[1])


def test_overlay_and_heat_map(ui, finished, views):
    composite = views["Red"].GetSliceCompositeNode()
    assert composite.GetForegroundVolumeID() == finished.score.GetID()
    ui.opacitySlider.setValue(0.85)
    assert composite.GetLabelOpacity() == pytest.approx(0.85)
    ui.heatMapBox.click()
    assert composite.GetForegroundOpacity() == 0
    ui.heatMapBox.click()
    assert composite.GetForegroundOpacity() > 0


def test_a_removed_result_leaves_the_scene_and_the_panel(module, ui, ct, mrml, views, slicer_python, results):
    before = mrml.identities()
    slicer_python("copy", results)
    ui.inputSelector.setCurrentNode(ct)
    ui.applyButton.click()
    wait_for(lambda: not module.panel.runs.running)
    ui.removeButton.click()
    assert mrml.identities() == before
    assert ui.findingsTable.rowCount == 0
    assert not ui.resultsButton.enabled


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


def test_everything_comes_back_with_the_scene(module, ui, finished, mrml, tmp_path):
    """Through an MRB file: parameters and result."""
    ui.rateSlider.setValue(7)
    ui.heatMapBox.click()
    ui.viewsBox.setValue(12)
    ui.deviceBox.setCurrentIndex(1)
    ui.inputFileEdit.edit.setText("/data/Müller ü.h5")
    rows = ui.findingsTable.rowCount
    regions = array_of(finished.regions).copy()
    path = tmp_path / "scene.mrb"
    assert mrml.scene.WriteToMRB(str(path))
    mrml.scene.Clear(False)
    assert ui.findingsTable.rowCount == 0
    assert ui.viewsBox.value == 0
    assert mrml.scene.ReadFromMRB(str(path))
    module.onSceneComes()
    assert ui.inputSelector.currentNode().GetName() == "Müller, CT 1"
    assert (ui.rateSlider.value, ui.viewsBox.value, ui.deviceBox.currentIndex) == (7, 12, 1)
    assert not ui.heatMapBox.checked
    assert ui.inputFileEdit.currentPath == "/data/Müller ü.h5"
    again = module.panel.results.result
    np.testing.assert_array_equal(array_of(again.regions), regions)
    assert ui.findingsTable.rowCount == rows
    ui.rateSlider.setValue(4)
    np.testing.assert_array_equal(array_of(again.regions), open_results(again.folder).at(0.1).regions)


def test_only_what_came_from_the_dicom_database_can_go_there(ui, finished):
    assert not ui.exportButton.enabled
    assert "DICOM database" in ui.exportButton.toolTip


def test_findings_go_to_the_dicom_database(module, ui, finished, monkeypatch, slicer_python, tmp_path, results):
    """The engine's export writes them; here a fake one does, and a database that keeps what it gets."""
    added, asked = [], []
    folder = tmp_path / "source"
    folder.mkdir()
    for uid in ("1.2.3", "1.2.4"):
        (folder / uid).write_bytes(b"DICM")

    def import_dicom(path, database, copyFiles):
        added.extend(sorted(file.name for file in Path(path).iterdir()))
        asked.append(copyFiles)
        return True

    dicom_lib = types.ModuleType("DICOMLib")
    dicom_lib.DICOMUtils = types.SimpleNamespace(importDicom=import_dicom)
    monkeypatch.setitem(__import__("sys").modules, "DICOMLib", dicom_lib)
    database = types.SimpleNamespace(fileForInstance=lambda uid: str(folder / uid) if uid != "gone" else "")
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    finished.input_node.SetAttribute("DICOM.instanceUIDs", "1.2.3 gone 1.2.4")
    module.panel.update()
    assert ui.exportButton.enabled
    slicer_python("copy", results)
    ui.exportButton.click()
    wait_for(lambda: not module.logic.detector.running)
    assert ui.exportLabel.text == "The findings are in the DICOM database, in the study of the input."
    assert "findings.json" in added
    assert asked == [True]
    slicer_python("3")
    ui.exportButton.click()
    wait_for(lambda: not module.logic.detector.running)
    assert ui.exportLabel.text == "Scan.nrrd ended with 3; try another."


def test_the_engine_reads_what_the_panel_wrote(finished):
    """Its regions file and the nodes are the same voxels."""
    written = sitk.GetArrayFromImage(sitk.ReadImage(finished.folder / "regions.nrrd"))
    assert written.shape == array_of(finished.regions).shape
