"""Another rate of false alarms after the run: what such a run would have brought, in the nodes that are there."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from KLIPLib.results import find_results, import_results
from KLIPLib.threshold import set_rate

from klip_engine.errors import InputError, UsageError
from klip_engine.io import read_ct
from klip_engine.pipeline import detect
from klip_engine.saved import open_results
from tests.extension.mrml import Mrml, array_of, column_of, slicer
from tests.extension.scene.conftest import SETTINGS


def state(result) -> dict:
    """All that marking decides."""
    segmentation = result.segmentation.GetSegmentation()
    segments = [segmentation.GetNthSegment(n) for n in range(segmentation.GetNumberOfSegments())]
    names = ("Label", "Finding", "Score", "Volume (ml)", "S (mm)", "First slice", "Last slice")
    table = result.region_colours.GetLookupTable()
    return {
        "labels": array_of(result.regions).tobytes(),
        "segments": [(s.GetName(), s.GetColor()) for s in segments],
        "table": {name: np.array(column_of(result.findings, name)).tolist() for name in names},
        "threshold": set(column_of(result.slices, "Threshold")),
        "colours": [table.GetTableValue(n) for n in range(table.GetNumberOfTableValues())],
        "attributes": {
            (node.GetAttribute("KLIP.FalseAlarms"), node.GetAttribute("KLIP.Threshold"))
            for node in result.nodes.values()
        },
    }


def test_the_nodes_become_those_of_a_run_with_that_rate(mrml, scan, results, tmp_path):
    result = import_results(mrml.scene, results, scan)
    first, nodes, items = state(result), mrml.identities(), mrml.items()
    detection = detect(
        read_ct(results.parent / "input.nrrd"), results.parent / "wiener", replace(SETTINGS, false_alarms=0.3)
    )
    threshold = set_rate(result, 0.3)
    assert threshold == pytest.approx(detection.threshold)
    np.testing.assert_array_equal(array_of(result.regions), detection.regions)
    assert column_of(result.findings, "Score") == pytest.approx([f.score for f in detection.findings])
    assert column_of(result.findings, "p-value") == pytest.approx([f.p_value for f in detection.findings])
    assert result.segmentation.GetSegmentation().GetNumberOfSegments() == len(detection.findings)
    assert (mrml.identities(), mrml.items()) == (nodes, items)
    exported = mrml.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    slicer.vtkSlicerSegmentationsModuleLogic.ExportAllSegmentsToLabelmapNode(
        result.segmentation, exported, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
    )
    np.testing.assert_array_equal(array_of(exported), detection.regions)
    assert set(column_of(result.slices, "Threshold")) == {threshold}
    set_rate(result, 0.1)
    assert state(result) == first


@pytest.mark.parametrize("surfaces", [True, False])
def test_surfaces_are_made_anew_where_there_were_any(mrml, scan, results, surfaces):
    result = import_results(mrml.scene, results, scan, surfaces=surfaces)
    set_rate(result, 0.3)
    segmentation = result.segmentation.GetSegmentation()
    last = segmentation.GetNthSegmentID(segmentation.GetNumberOfSegments() - 1)
    surface = result.segmentation.GetClosedSurfaceInternalRepresentation(last)
    assert (surface is not None and surface.GetNumberOfPoints() > 0) == surfaces


def test_nothing_marked_is_possible_and_can_be_taken_back(mrml, scan, results):
    result = import_results(mrml.scene, results, scan)
    before = state(result)
    set_rate(result, 0.001)
    marked = open_results(results).at(0.001)
    assert result.findings.GetTable().GetNumberOfRows() == len(marked.findings)
    assert result.segmentation.GetSegmentation().GetNumberOfSegments() == len(marked.findings)
    set_rate(result, 0.1)
    assert state(result) == before


def test_another_result_in_the_scene_stays_as_it_is(mrml, scan, results):
    one, other = (import_results(mrml.scene, results, scan) for _ in range(2))
    before = state(other)
    set_rate(one, 0.3)
    assert state(other) == before
    assert state(one) != before


def test_a_result_of_a_scene_that_was_read_can_be_marked_again(mrml, scan, results, tmp_path):
    result = import_results(mrml.scene, results, scan)
    assert mrml.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    again = Mrml()
    assert again.scene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    [found] = find_results(again.scene)
    assert set_rate(found, 0.3) == set_rate(result, 0.3)
    one, other = state(found), state(result)
    assert one["labels"] == other["labels"]
    assert one["segments"] == other["segments"]
    assert one["table"] == other["table"]


def test_where_the_folder_is_gone_or_the_rate_is_none_nothing_changes(mrml, scan, results, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(results, folder)
    import_results(mrml.scene, folder, scan)
    [result] = find_results(mrml.scene)
    before = state(result)
    with pytest.raises(UsageError):
        set_rate(result, 1.5)
    shutil.rmtree(folder)
    [result] = find_results(mrml.scene)
    with pytest.raises(InputError, match="holds no results"):
        set_rate(result, 0.3)
    assert state(result) == before


def test_a_folder_that_holds_another_run_by_now_is_not_marked_from(mrml, scan, results, tmp_path):
    """As after `klip-engine detect -o OUT` a second time: what is in the scene stays what it is."""
    shutil.copytree(results, tmp_path / "out")
    import_results(mrml.scene, tmp_path / "out", scan)
    findings = tmp_path / "out" / "findings.json"
    findings.write_text(findings.read_text().replace('"seed": ', '"seed": 1'))
    (again,) = find_results(mrml.scene)
    before = state(again)
    with pytest.raises(InputError, match="another run by now"):
        set_rate(again, 0.3)
    assert state(again) == before
