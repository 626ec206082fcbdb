"""What slice views show of a result, pixel by pixel, and where they jump."""

from __future__ import annotations

import numpy as np
import pytest
from KLIPLib.display import hide, set_heat_map, set_overlay_opacity, show
from KLIPLib.jump import jump_to_finding, jump_to_slice
from KLIPLib.results import import_results

from klip_engine.io import score_rgb
from tests.extension.mrml import array_of, column_of, composite_of, ras_of, vtk
from tests.extension.scene.conftest import ball_scan

STRAIGHT = np.diag([-3.0, -4.0, 5.0, 1])
STRAIGHT[:3, 3] = (160, 170, -70)
SIZE = (110, 90, 30)


@pytest.fixture
def views(mrml):
    return {name: mrml.add_slice_view(name, name) for name in ("Axial", "Sagittal", "Coronal")}


@pytest.fixture
def result(mrml, scan, results, views):
    return import_results(mrml.scene, results, scan)


@pytest.fixture
def straight(mrml, results, views, tmp_path):
    """The same result put on a grid of axial slices: a pixel of the view is a voxel."""
    import shutil

    import SimpleITK as sitk

    folder = tmp_path / "out"
    shutil.copytree(results, folder)
    for name in ("klip.nrrd", "reconstruction.nrrd", "regions.nrrd"):
        image = sitk.ReadImage(str(folder / name))
        image.SetSpacing((3, 4, 5))
        image.SetOrigin((-160, -170, -70))
        image.SetDirection(np.eye(3).ravel().tolist())
        sitk.WriteImage(image, str(folder / name))
    return import_results(mrml.scene, folder, mrml.add_volume(ball_scan(STRAIGHT), STRAIGHT, "straight"))


def _slice_seen(view, node, k: int) -> np.ndarray:
    """The composite on slice k, one pixel a voxel, RGBA [j, i]."""
    # Pixel n of N lies n - N / 2 pixels from the middle of the view.
    centre = ras_of(node, [(SIZE[0] / 2, SIZE[1] / 2 - 1, k)])[0]
    view.GetSliceNode().GetSliceToRAS().DeepCopy(
        [-1, 0, 0, centre[0], 0, 1, 0, centre[1], 0, 0, 1, centre[2], 0, 0, 0, 1]
    )
    view.GetSliceNode().UpdateMatrices()
    return composite_of(view, SIZE[:2], (SIZE[0] * 3.0, SIZE[1] * 4.0)).astype(int)


def _layers(view) -> tuple:
    node = view.GetSliceCompositeNode()
    return node.GetBackgroundVolumeID(), node.GetForegroundVolumeID(), node.GetLabelVolumeID()


def test_the_overlay_covers_the_voxels_of_the_findings_and_no_others(straight, views):
    labels = array_of(straight.regions)
    k = int((labels > 0).sum(axis=(1, 2)).argmax())
    show(straight, heat_map=False, overlay_opacity=0.0)
    plain = _slice_seen(views["Axial"], straight.regions, k)
    show(straight, heat_map=False, overlay_opacity=1.0)
    covered = _slice_seen(views["Axial"], straight.regions, k)
    assert (labels[k] > 0).any()
    np.testing.assert_array_equal((plain != covered).any(axis=-1), labels[k] > 0)
    assert (plain[..., 0] == plain[..., 1]).all(), "without overlays the CT is grey"
    table = straight.region_colours.GetLookupTable()
    for label in np.unique(labels[k])[1:]:
        expected = np.round(255 * np.array(table.GetTableValue(int(label))[:3]))
        pixels = covered[labels[k] == label][:, :3]
        np.testing.assert_allclose(pixels, np.broadcast_to(expected, pixels.shape), atol=1)


def test_half_opacity_is_the_mean_of_ct_and_colour(straight, views):
    labels = array_of(straight.regions)
    k = int((labels > 0).sum(axis=(1, 2)).argmax())
    seen = []
    for opacity in (0.0, 1.0, 0.5):
        show(straight, heat_map=False, overlay_opacity=opacity)
        seen.append(_slice_seen(views["Axial"], straight.regions, k)[labels[k] > 0][:, :3])
    np.testing.assert_allclose(seen[2], (seen[0] + seen[1]) / 2, atol=2)


def test_the_heat_map_colours_high_scores_and_leaves_low_ones_alone(straight, views):
    score = array_of(straight.score)
    k = int(score.max(axis=(1, 2)).argmax())
    show(straight, heat_map=False, overlay_opacity=0.0)
    plain = _slice_seen(views["Axial"], straight.score, k)
    show(straight, heat_map=True, heat_map_opacity=1.0, overlay_opacity=0.0)
    heated = _slice_seen(views["Axial"], straight.score, k)
    visible = score[k] >= straight.score.GetDisplayNode().GetLowerThreshold()
    assert visible.any()
    assert not visible.all()
    # The view interpolates the score: a pixel at the edge of what is visible may fall on either side.
    clear = np.abs(score[k] - straight.score.GetDisplayNode().GetLowerThreshold()) > 0.02
    np.testing.assert_array_equal((plain != heated).any(axis=-1)[clear], visible[clear])
    expected = score_rgb(score[k], straight.score.GetDisplayNode().GetWindowLevelMax()).astype(int)
    np.testing.assert_allclose(heated[..., :3][visible & clear], expected[visible & clear], atol=8)
    set_heat_map(straight, False)
    np.testing.assert_array_equal(_slice_seen(views["Axial"], straight.score, k), plain)


def test_without_an_input_the_reconstruction_is_the_background(mrml, results, views):
    result = import_results(mrml.scene, results)
    show(result)
    assert _layers(views["Axial"])[0] == result.reconstruction.GetID()
    hide(result)
    assert _layers(views["Axial"]) == (None, None, None)


def test_switches_touch_only_the_views_that_show_the_result(mrml, scan, result, views):
    show(result)
    elsewhere = views["Coronal"].GetSliceCompositeNode()
    elsewhere.SetLabelVolumeID(None)
    elsewhere.SetForegroundVolumeID(None)
    elsewhere.SetLabelOpacity(0.25)
    set_overlay_opacity(result, 0.75)
    set_heat_map(result, True, 0.5)
    assert elsewhere.GetLabelOpacity() == 0.25
    assert _layers(views["Coronal"]) == (scan.GetID(), None, None)
    assert views["Axial"].GetSliceCompositeNode().GetLabelOpacity() == 0.75
    assert result.segmentation.GetDisplayNode().GetOpacity2DOutline() == 1.0
    hide(result)
    assert all(_layers(view) == (scan.GetID(), None, None) for view in views.values())


def test_all_views_cut_a_finding_they_jump_to_also_after_the_volume_was_moved(mrml, scan, result, views):
    labels = array_of(result.regions)
    for _ in range(2):
        for label in (1, 2):
            place = np.array(jump_to_finding(result, label))
            voxels = np.argwhere(labels == label)[:, ::-1]
            assert np.linalg.norm(ras_of(result.regions, voxels) - place, axis=1).min() < 8, (
                "a working pixel is 8 mm"
            )
            for view in views.values():
                centre = [view.GetSliceNode().GetSliceToRAS().GetElement(axis, 3) for axis in range(3)]
                np.testing.assert_allclose(centre, place, atol=1e-6)
        shift = vtk.vtkMatrix4x4()
        shift.DeepCopy([0, -1, 0, 40, 1, 0, 0, -15, 0, 0, 1, 33, 0, 0, 0, 1])
        scan.GetParentTransformNode().ApplyTransformMatrix(shift)
    with pytest.raises(KeyError, match="no finding 999"):
        jump_to_finding(result, 999)


def test_a_point_of_the_curve_moves_the_axial_view_alone(mrml, scan, result, views):
    before = {
        name: [v.GetSliceNode().GetSliceToRAS().GetElement(a, 3) for a in range(3)] for name, v in views.items()
    }
    positions = column_of(result.slices, "S (mm)")
    for row in (0, len(positions) - 1, 3):
        assert jump_to_slice(result, row) == pytest.approx(positions[row])
        for name, view in views.items():
            here = [view.GetSliceNode().GetSliceToRAS().GetElement(axis, 3) for axis in range(3)]
            expected = [*before[name][:2], positions[row] if name == "Axial" else before[name][2]]
            np.testing.assert_allclose(here, expected, atol=1e-6)
    for row in (-1, len(positions)):
        with pytest.raises(KeyError, match="no point"):
            jump_to_slice(result, row)
    scan.GetParentTransformNode().SetMatrixTransformToParent(vtk.vtkMatrix4x4())
    raised = vtk.vtkMatrix4x4()
    raised.SetElement(2, 3, 25)
    scan.GetParentTransformNode().ApplyTransformMatrix(raised)
    assert jump_to_slice(result, 3) != pytest.approx(positions[3])
