"""A volume of the scene reaches the engine where it is seen in the world, or is refused with a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from KLIPLib.export_input import checked_ijk_to_lps, export_input

from klip_engine.errors import InputError, ResourceError
from klip_engine.io import read_ct
from tests.extension.mrml import array_of, ras_of, slicer, vtk
from tests.extension.scene.conftest import MOVED, OBLIQUE

CORNERS = [(0, 0, 0), (22, 0, 0), (0, 16, 0), (0, 0, 8), (22, 16, 8), (3, 7, 5)]
LEFT_HANDED = OBLIQUE @ np.diag([1, 1, -1, 1])


def _noise(dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 2000, (9, 17, 23)).astype(dtype)


@pytest.mark.parametrize("matrix", [OBLIQUE, LEFT_HANDED], ids=["oblique", "left-handed"])
@pytest.mark.parametrize("moved", [(), (MOVED,), (MOVED, OBLIQUE @ np.diag([1 / 3.1, 1 / 3.7, 1 / 5.3, 1]))])
def test_every_voxel_lies_in_the_file_where_it_lies_in_the_world(mrml, tmp_path, matrix, moved):
    node = mrml.add_volume(_noise(), matrix)
    child = node
    for transform in map(mrml.add_transform, moved):
        child.SetAndObserveTransformNodeID(transform.GetID())
        child = transform
    export_input(node, tmp_path / "input.nrrd")
    written = sitk.ReadImage(str(tmp_path / "input.nrrd"))
    lps = [written.TransformIndexToPhysicalPoint(corner) for corner in CORNERS]
    np.testing.assert_allclose(np.array(lps) * (-1, -1, 1), ras_of(node, CORNERS), atol=1e-6)
    assert written.GetPixelID() == sitk.sitkInt16
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), _noise())


def test_the_engine_reads_the_file_and_the_node_is_left_as_it_was(mrml, scan, tmp_path):
    before = array_of(scan).copy()
    nodes = mrml.identities()
    export_input(scan, tmp_path / "input.nrrd")
    volume = read_ct(tmp_path / "input.nrrd").volume
    np.testing.assert_array_equal(volume.hu, before)
    np.testing.assert_allclose(volume.geometry.to_lps(CORNERS) * (-1, -1, 1), ras_of(scan, CORNERS), atol=1e-6)
    assert mrml.identities() == nodes
    np.testing.assert_array_equal(array_of(scan), before)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_voxels_keep_their_type(mrml, tmp_path, dtype):
    voxels = _noise(dtype)
    export_input(mrml.add_volume(voxels, OBLIQUE), tmp_path / "input.nrrd")
    back = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "input.nrrd")))
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, voxels)


def _below_bent_transform(mrml):
    node = mrml.add_volume(_noise(), OBLIQUE, "bent")
    points = vtk.vtkPoints()
    for point in ((0, 0, 0), (100, 0, 0), (0, 100, 0), (0, 0, 100)):
        points.InsertNextPoint(*point)
    elsewhere = vtk.vtkPoints()
    elsewhere.DeepCopy(points)
    elsewhere.SetPoint(0, 9, 0, 0)
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetSourceLandmarks(points)
    spline.SetTargetLandmarks(elsewhere)
    transform = mrml.scene.AddNewNodeByClass("vtkMRMLTransformNode", "spline")
    transform.SetAndObserveTransformToParent(spline)
    node.SetAndObserveTransformNodeID(transform.GetID())
    return node


def _below_shear(mrml):
    node = mrml.add_volume(_noise(), OBLIQUE, "sheared")
    shear = np.eye(4)
    shear[0, 2] = 0.3
    node.SetAndObserveTransformNodeID(mrml.add_transform(shear).GetID())
    return node


def _label_map(mrml):
    node = mrml.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    node.SetAndObserveImageData(mrml.add_volume(_noise(), OBLIQUE).GetImageData())
    return node


def _colours(mrml):
    node = mrml.scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colours")
    image = vtk.vtkImageData()
    image.SetDimensions(4, 4, 4)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    node.SetAndObserveImageData(image)
    return node


def _empty(mrml):
    return mrml.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")


def _flat(mrml):
    return mrml.add_volume(_noise(), OBLIQUE @ np.diag([1, 0, 1, 1]), "flat")


def _model(mrml):
    return mrml.scene.AddNewNodeByClass("vtkMRMLModelNode", "a model")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_below_bent_transform, r"bent is below a transform that is not linear \(spline\); harden"),
        (_below_shear, "the axes of sheared are not at right angles.*resample"),
        (_label_map, "labels is not a scalar volume; choose a CT"),
        (_colours, "colours is not a scalar volume; choose a CT"),
        (_model, "a model is not a scalar volume; choose a CT"),
        (_empty, "empty holds no voxels; load its image"),
        (_flat, "flat has voxels without a size; correct its spacing"),
        (lambda _: None, "no volume is chosen"),
    ],
)
def test_what_a_file_cannot_express_is_refused_and_nothing_is_written(mrml, tmp_path, make, sentence):
    node = make(mrml)
    for refuse in (checked_ijk_to_lps, lambda volume: export_input(volume, tmp_path / "input.nrrd")):
        with pytest.raises(InputError, match=sentence):
            refuse(node)
    assert not list(tmp_path.iterdir())


def test_a_transform_that_scales_and_mirrors_is_no_shear(mrml, tmp_path):
    node = mrml.add_volume(_noise(), np.diag([2.0, 3.0, 4.0, 1]))
    node.SetAndObserveTransformNodeID(mrml.add_transform(np.diag([-1.5, 0.5, 2, 1])).GetID())
    export_input(node, tmp_path / "input.nrrd")
    written = sitk.ReadImage(str(tmp_path / "input.nrrd"))
    np.testing.assert_allclose(written.GetSpacing(), (3.0, 1.5, 8.0), atol=1e-6)
    lps = [written.TransformIndexToPhysicalPoint(corner) for corner in CORNERS]
    np.testing.assert_allclose(np.array(lps) * (-1, -1, 1), ras_of(node, CORNERS), atol=1e-6)


def test_a_place_that_cannot_be_written_is_named(mrml, scan, tmp_path):
    with pytest.raises(ResourceError, match=r"input\.nrrd could not be written"):
        export_input(scan, tmp_path / "nowhere" / "input.nrrd")


def test_slicers_own_reader_puts_the_file_on_the_same_place(mrml, scan, tmp_path):
    export_input(scan, tmp_path / "input.nrrd")
    reader = slicer.vtkMRMLVolumeArchetypeStorageNode()
    reader.SetFileName(str(tmp_path / "input.nrrd"))
    again = mrml.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    assert reader.ReadData(again)
    np.testing.assert_allclose(ras_of(again, CORNERS), ras_of(scan, CORNERS), atol=1e-6)
