"""The panel with a result: other rates of false alarms, findings, curve, overlay, DICOM, a scene saved and read."""

from __future__ import annotations

import json
import types
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import vtk

from klip_engine.saved import open_results
from tests.extension.mrml import array_of, slicer
from tests.extension.panel.conftest import wait_for


def texts(table, row: int) -> list[str]:
    return [table.item(row, column).text() for column in range(table.columnCount)]


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
    slices = str(first) if first == last else f"{first}-{last}"
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


def test_a_result_of_projections_comes_into_sight(app, module, ui, views, slicer_python, results, tmp_path):
    (tmp_path / "scan.h5").write_bytes(b"projections")
    slicer_python("copy", results)
    ui.fileRadio.click()
    ui.inputFileEdit.edit.setText(str(tmp_path / "scan.h5"))
    ui.applyButton.click()
    wait_for(lambda: module.panel.results.result is not None)
    background = views["Red"].GetSliceCompositeNode().GetBackgroundVolumeID()
    assert background == module.panel.results.result.reconstruction.GetID()
    assert app.fitted == 1


def test_views_on_a_scan_stay_as_they_are(app, finished):
    assert app.fitted == 0


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
    ui.rateSlider.setValue(4)
    ui.exportButton.click()
    command = module.logic.detector.running[0]._run.log[0]
    assert "--objects seg --false-alarms 0.1 " in command
    listed = Path(command.split("--source ")[1].split()[0]).read_text().split()
    assert listed == [str(folder / "1.2.3"), str(folder / "1.2.4")]
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
