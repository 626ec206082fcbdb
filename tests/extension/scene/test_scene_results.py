"""A result of the engine in a scene: the right voxels and numbers on the right place, whole or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from KLIPLib import results as results_module
from KLIPLib.result_nodes import CLASSES
from KLIPLib.results import find_results, import_results, remove_results

from klip_engine.detection import NOTICE
from klip_engine.errors import InputError
from klip_engine.io import write_results
from tests.extension.mrml import Mrml, array_of, column_of, ras_of, slicer, vtk
from tests.extension.scene.conftest import MOVED, OBLIQUE, oblique_scan
from tests.io.conftest import make_detection

CORNERS = [(0, 0, 0), (109, 0, 0), (0, 89, 0), (0, 0, 29), (109, 89, 29), (13, 27, 25)]
MAPS = {"reconstruction": "reconstruction.nrrd", "score": "klip.nrrd", "regions": "regions.nrrd"}


def document_of(folder) -> dict:
    return json.loads((folder / "findings.json").read_text())


@pytest.fixture
def result(mrml, scan, results):
    return import_results(mrml.scene, results, scan)


def test_the_maps_hold_the_engines_voxels_on_the_inputs_own_grid(mrml, scan, results, result):
    for role, file in MAPS.items():
        node, written = result.nodes[role], sitk.ReadImage(str(results / file))
        np.testing.assert_array_equal(array_of(node), sitk.GetArrayFromImage(written))
        assert array_of(node).dtype == sitk.GetArrayViewFromImage(written).dtype
        own, of_input = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(own)
        scan.GetIJKToRASMatrix(of_input)
        assert [own.GetElement(r, c) for r in range(4) for c in range(4)] == [
            of_input.GetElement(r, c) for r in range(4) for c in range(4)
        ]
        assert node.GetParentTransformNode() is scan.GetParentTransformNode()
        lps = [written.TransformIndexToPhysicalPoint(corner) for corner in CORNERS]
        np.testing.assert_allclose(ras_of(node, CORNERS), np.array(lps) * (-1, -1, 1), atol=1e-6)


def test_the_segments_are_the_findings(mrml, scan, results, result):
    document, labels = document_of(results), sitk.GetArrayFromImage(sitk.ReadImage(str(results / "regions.nrrd")))
    segmentation = result.segmentation.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == len(document["findings"]) > 1
    for number, finding in enumerate(document["findings"]):
        segment = segmentation.GetNthSegment(number)
        assert segment.GetName() == f"Finding {finding['label']} (p {finding['p_value']:.2g})"
    # Slicer's own tool, on the grid of the input: what a user's script would see. Segment n becomes label n.
    exported = mrml.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    assert slicer.vtkSlicerSegmentationsModuleLogic.ExportAllSegmentsToLabelmapNode(
        result.segmentation, exported, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
    )
    np.testing.assert_array_equal(array_of(exported), labels)
    np.testing.assert_allclose(ras_of(exported, CORNERS), ras_of(scan, CORNERS), atol=1e-6)


def test_surfaces_lie_around_their_findings(results, result):
    for finding in document_of(results)["findings"]:
        surface = result.segmentation.GetClosedSurfaceInternalRepresentation(f"finding-{finding['label']}")
        bounds = np.array(surface.GetBounds()).reshape(3, 2)
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(results / "regions.nrrd")))
        voxels = np.argwhere(labels == finding["label"])[:, ::-1]
        points = voxels @ OBLIQUE[:3, :3].T + OBLIQUE[:3, 3]
        np.testing.assert_allclose(bounds.mean(axis=1), (points.min(0) + points.max(0)) / 2, atol=6)


def test_colours_follow_the_score_and_nothing_is_transparent(results, result):
    scores = [finding["score"] for finding in document_of(results)["findings"]]
    table, segmentation = result.region_colours.GetLookupTable(), result.segmentation.GetSegmentation()
    assert table.GetTableValue(0)[3] == 0
    colours = [table.GetTableValue(label)[:3] for label in range(1, len(scores) + 1)]
    brightness = [sum(colour) for colour in colours]
    assert scores == sorted(scores, reverse=True)
    assert max(np.diff(brightness)) <= 2 / 255, "weaker findings are darker, but for the rounding of tables"
    for number, colour in enumerate(colours):
        np.testing.assert_allclose(segmentation.GetNthSegment(number).GetColor(), colour, atol=1 / 255)
    heat = result.score_colours.GetLookupTable()
    rgb = np.array([heat.GetTableValue(index)[:3] for index in range(256)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)  # sRGB, IEC 61966-2-1
    lightness = 116 * np.cbrt(linear @ (0.2126, 0.7152, 0.0722) + 0.002) - 16  # near CIE L*
    steps = np.diff(lightness[::15])
    assert (steps > 0.5 * steps.mean()).all(), "a perceptually uniform scale grows brighter evenly, all the way"
    display = result.score.GetDisplayNode()
    assert display.GetWindowLevelMin() == 0
    assert display.GetWindowLevelMax() == pytest.approx(max(scores))


def test_the_reconstruction_is_seen_in_the_window_of_the_input(mrml, results):
    scan = oblique_scan(mrml)
    scan.GetDisplayNode().AutoWindowLevelOff()
    scan.GetDisplayNode().SetWindowLevel(1234, -321)
    display = import_results(mrml.scene, results, scan).reconstruction.GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel()) == (1234, -321)


def test_the_tables_say_what_findings_json_says(results, result):
    document = document_of(results)
    findings, slices = document["findings"], document["slices"]
    table = result.findings
    assert column_of(table, "Label") == [f["label"] for f in findings]
    for column, key in (("Score", "score"), ("p-value", "p_value"), ("Volume (ml)", "volume_ml")):
        assert column_of(table, column) == [f[key] for f in findings]
    ras = np.array([column_of(table, f"{axis} (mm)") for axis in "RAS"]).T
    np.testing.assert_allclose(ras * (-1, -1, 1), [f["centroid_lps_mm"] for f in findings], atol=1e-9)
    assert column_of(table, "First slice") == [f["slice_range"][0] for f in findings]
    assert column_of(table, "Last slice") == [f["slice_range"][1] for f in findings]
    ordered = sorted(slices, key=lambda s: s["position_mm"])
    for column, key in (("Slice", "index"), ("S (mm)", "position_mm"), ("Score", "score"), ("p-value", "p_value")):
        assert column_of(result.slices, column) == [s[key] for s in ordered]
    assert set(column_of(result.slices, "Threshold")) == {document["threshold"]}


def test_the_chart_draws_curve_threshold_and_findings(result):
    chart = result.chart
    series = [chart.GetNthPlotSeriesNode(number) for number in range(chart.GetNumberOfPlotSeriesNodes())]
    drawn = [(s.GetTableNode(), s.GetXColumnName(), s.GetYColumnName(), s.GetLabelColumnName()) for s in series]
    assert drawn == [
        (result.slices, "S (mm)", "Score", "Name"),
        (result.slices, "S (mm)", "Threshold", ""),
        (result.findings, "S (mm)", "Score", "Finding"),
    ]
    for table, *columns in drawn:
        assert all(table.GetTable().GetColumnByName(name) for name in columns if name)
    assert (series[2].GetLineStyle(), series[1].GetMarkerStyle()) == (
        slicer.vtkMRMLPlotSeriesNode.LineStyleNone,
        slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone,
    )


def test_every_node_says_what_computed_it_and_that_it_is_research(results, result):
    document = document_of(results)
    assert result.nodes.keys() == CLASSES.keys()
    for node in result.nodes.values():
        assert NOTICE in node.GetDescription()
        assert document["prior"]["hash"] in node.GetDescription()
        assert node.GetAttribute("KLIP.Notice") == NOTICE
        assert node.GetAttribute("KLIP.Engine") == document["engine"]
        assert json.loads(node.GetAttribute("KLIP.Settings")) == document["settings"]
        assert json.loads(node.GetAttribute("KLIP.Prior")) == document["prior"]
        assert node.GetAttribute("KLIP.ResultFolder") == str(results)


def test_all_of_it_is_in_one_folder_in_the_inputs_study(mrml, result):
    assert mrml.items() == ["Study 7", "  CT", "  KLIP results (CT)"] + [
        f"    CT KLIP {what}"
        for what in ("reconstruction", "score", "regions", "findings", "findings table", "slice scores",
                     "slice-score curve")
    ]  # fmt: skip


@pytest.mark.parametrize("shown", [False, True])
def test_a_removed_result_leaves_the_scene_as_it_was(mrml, scan, results, shown):
    from KLIPLib.display import show

    view = mrml.add_slice_view("Red", "Axial").GetSliceCompositeNode()
    view.SetBackgroundVolumeID(scan.GetID())
    nodes, items = mrml.identities(), mrml.items()
    result = import_results(mrml.scene, results, scan)
    assert len(mrml.identities()) > len(nodes)
    if shown:
        show(result)
        assert view.GetLabelVolumeID() == result.regions.GetID()
    remove_results(result)
    assert (mrml.identities(), mrml.items()) == (nodes, items)
    assert (view.GetBackgroundVolumeID(), view.GetForegroundVolumeID(), view.GetLabelVolumeID()) == (
        scan.GetID(),
        None,
        None,
    )
    assert find_results(mrml.scene) == []


def test_removing_spares_what_the_user_put_into_the_folder(mrml, scan, results, result):
    notes = mrml.scene.AddNewNodeByClass("vtkMRMLTableNode", "my notes")
    hierarchy = mrml.hierarchy
    hierarchy.CreateItem(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result.score)), notes)
    remove_results(result)
    assert mrml.items() == ["Study 7", "  CT", "  my notes"]
    assert mrml.scene.IsNodePresent(notes)


@pytest.mark.parametrize("step", ["make_surfaces", "fill_chart", "add_folder", "mark", "show_as_heat_map"])
def test_a_failure_half_way_leaves_the_scene_as_it_was(mrml, scan, results, monkeypatch, step):
    def fail(*_, **__):
        raise MemoryError("no more memory")

    nodes, items = mrml.identities(), mrml.items()
    monkeypatch.setattr(results_module, step, fail)
    with pytest.raises(MemoryError):
        import_results(mrml.scene, results, scan)
    assert (mrml.identities(), mrml.items()) == (nodes, items)


def _without(name):
    return lambda folder: (folder / name).unlink()


def _with(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def _smaller_score(folder):
    sitk.WriteImage(sitk.ReadImage(str(folder / "klip.nrrd"))[:-1], str(folder / "reconstruction.nrrd"))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_without("findings.json"), "holds no results"),
        (_with("findings.json", b"{"), r"findings\.json cannot be read; run"),
        (_without("klip.nrrd"), "not complete or damaged"),
        (_without("regions.nrrd"), r"regions\.nrrd of the results cannot be read; run"),
        (_with("reconstruction.nrrd", b"NRRD0004\n"), r"reconstruction\.nrrd of the results cannot be read; run"),
        (_smaller_score, r"reconstruction\.nrrd does not fit the other maps"),
    ],
)
def test_damaged_results_are_refused_and_nothing_is_added(mrml, scan, results, tmp_path, damage, sentence):
    folder = tmp_path / "out"
    shutil.copytree(results, folder)
    damage(folder)
    nodes, items = mrml.identities(), mrml.items()
    with pytest.raises(InputError, match=sentence):
        import_results(mrml.scene, folder, scan)
    assert (mrml.identities(), mrml.items()) == (nodes, items)


def test_results_of_another_volume_are_refused(mrml, results):
    other = mrml.add_volume(np.zeros((5, 6, 7), np.int16), OBLIQUE, "other")
    with pytest.raises(InputError, match=r"110 x 90 x 30 voxels and the volume other has 7 x 6 x 5; choose"):
        import_results(mrml.scene, results, other)


def test_where_the_volume_was_moved_since_results_lie_where_it_was(mrml, scan, results):
    was = ras_of(scan, CORNERS)
    scan.SetAndObserveTransformNodeID(None)
    result = import_results(mrml.scene, results, scan)
    for role in MAPS:
        np.testing.assert_allclose(ras_of(result.nodes[role], CORNERS), was, atol=1e-6)
    assert "was moved after the run" in result.score.GetAttribute("KLIP.Notices")


def test_results_of_projections_need_no_input(mrml, results):
    written = sitk.ReadImage(str(results / "klip.nrrd"))
    result = import_results(mrml.scene, results, name="sinogram 3")
    lps = [written.TransformIndexToPhysicalPoint(corner) for corner in CORNERS]
    np.testing.assert_allclose(ras_of(result.score, CORNERS), np.array(lps) * (-1, -1, 1), atol=1e-6)
    assert result.input_node is None
    assert mrml.items()[0] == "KLIP results (sinogram 3)"
    remove_results(result)
    assert mrml.items() == []


@pytest.mark.parametrize("changes", [{"findings": 0}, {"findings": 3, "p_value": None}, {"findings": 300}])
def test_no_findings_unknown_p_values_and_many_findings(mrml, tmp_path, changes):
    detection = make_detection(**changes)
    write_results(detection, tmp_path / "out")
    node = mrml.add_volume(detection.source.hu, np.diag([-1, -1, 1, 1]) @ detection.geometry.matrix)
    result = import_results(mrml.scene, tmp_path / "out", node)
    count = len(np.unique(detection.regions)) - 1
    assert result.segmentation.GetSegmentation().GetNumberOfSegments() == count
    assert result.findings.GetTable().GetNumberOfRows() == changes["findings"]
    np.testing.assert_array_equal(array_of(result.regions), detection.regions)
    if detection.findings and detection.findings[0].p_value is None:
        assert result.segmentation.GetSegmentation().GetNthSegment(0).GetName() == "Finding 1"
        assert np.isnan(column_of(result.findings, "p-value")).all()


def test_the_results_of_a_photograph_are_refused(mrml, results, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(results, folder)
    (folder / "reconstruction.nrrd").rename(folder / "reconstruction.png")
    nodes = mrml.identities()
    with pytest.raises(InputError, match=r"photograph.*report\.html"):
        import_results(mrml.scene, folder)
    assert mrml.identities() == nodes


NAMES = ["CT", 'a:b;c "d" <e> & %41 /f\\g', "Lunge ü 肺 🫁", "x" * 300, "../../etc"]


@pytest.mark.parametrize("name", NAMES)
def test_a_scene_that_was_saved_and_read_holds_the_result_again(results, tmp_path, name):
    mrml, again = Mrml(), Mrml()
    scan = oblique_scan(mrml, name)
    before = import_results(mrml.scene, results, scan)
    assert mrml.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    assert again.scene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    [after] = find_results(again.scene)
    assert (after.key, after.folder, after.input_node.GetName()) == (before.key, results, name)
    for role in CLASSES:
        assert after.nodes[role].GetName() == before.nodes[role].GetName()
        if not role.endswith("colours"):  # Slicer describes colour tables anew when it reads them
            assert after.nodes[role].GetDescription() == before.nodes[role].GetDescription()
        for attribute in before.nodes[role].GetAttributeNames():
            assert after.nodes[role].GetAttribute(attribute) == before.nodes[role].GetAttribute(attribute)
    for role in MAPS:
        np.testing.assert_array_equal(array_of(after.nodes[role]), array_of(before.nodes[role]))
        np.testing.assert_allclose(
            ras_of(after.nodes[role], CORNERS), ras_of(before.nodes[role], CORNERS), atol=1e-6
        )
    for number in range(before.segmentation.GetSegmentation().GetNumberOfSegments()):
        one, other = (r.segmentation.GetSegmentation().GetNthSegment(number) for r in (before, after))
        assert one.GetName() == other.GetName()
        np.testing.assert_allclose(one.GetColor(), other.GetColor(), atol=1e-2)
    labels = again.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    assert slicer.vtkSlicerSegmentationsModuleLogic.ExportAllSegmentsToLabelmapNode(
        after.segmentation, labels, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
    )
    np.testing.assert_array_equal(array_of(labels), array_of(before.regions))
    np.testing.assert_allclose(ras_of(labels, CORNERS), ras_of(scan, CORNERS), atol=1e-6)
    again.scene.RemoveNode(labels)
    assert after.region_colours.GetLookupTable().GetTableValue(0)[3] == 0
    np.testing.assert_allclose(column_of(after.findings, "Score"), column_of(before.findings, "Score"), rtol=1e-4)
    assert after.chart.GetNumberOfPlotSeriesNodes() == 3
    assert again.items() == mrml.items()
    remove_results(after)
    assert again.items() == ["Study 7", f"  {name}"]


def test_two_results_in_a_scene_do_not_mix(mrml, scan, results, tmp_path):
    detection = replace(make_detection(findings=2), threshold=1.25)
    write_results(detection, tmp_path / "out")
    other = mrml.add_volume(detection.source.hu, np.diag([-1, -1, 1, 1]) @ detection.geometry.matrix, "CT")
    first = import_results(mrml.scene, results, scan)
    nodes, items = mrml.identities(), mrml.items()
    second = import_results(mrml.scene, tmp_path / "out", other)
    third = import_results(mrml.scene, results, scan)
    found = find_results(mrml.scene)
    assert [r.key for r in found] == [first.key, second.key, third.key]
    assert [r.input_node for r in found] == [scan, other, scan]
    names = [node.GetName() for r in found for node in r.nodes.values()]
    assert len(set(names)) == len(names)
    assert len({node.GetID() for r in found for node in r.nodes.values()}) == 3 * len(CLASSES)
    for own in found:
        assert own.regions.GetDisplayNode().GetColorNode() is own.region_colours
        assert own.curve.GetTableNode() is own.slices
    remove_results(third)
    remove_results(second)
    assert (mrml.identities(), mrml.items()) == (nodes, items)
    assert array_of(first.regions).any()
    assert np.linalg.det(MOVED[:3, :3]) == pytest.approx(1)
