"""A Slicer scene without Slicer's window: MRML nodes and logics of slicer-core, wired as the application does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXTENSION = Path(__file__).resolve().parents[2] / "KLIPExtension"
if str(EXTENSION) not in sys.path:  # as Slicer does for a module's folder
    sys.path.insert(0, str(EXTENSION))

slicer = pytest.importorskip("slicer", reason="needs slicer-core: pip install 'klip-engine[extension-test]'")
import vtk  # noqa: E402
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy  # noqa: E402

_LOGICS = (
    "vtkSlicerVolumesLogic",
    "vtkSlicerSegmentationsModuleLogic",
    "vtkSlicerTablesLogic",
    "vtkSlicerPlotsLogic",
    "vtkSlicerSubjectHierarchyModuleLogic",
    "vtkSlicerTransformLogic",
)


class Mrml:
    """A scene with its logics, which live as long as this object."""

    def __init__(self) -> None:
        self.scene = slicer.vtkMRMLScene()
        self.application = slicer.vtkSlicerApplicationLogic()
        self.application.SetMRMLScene(self.scene)
        colours = slicer.vtkMRMLColorLogic()
        self._logics = [colours, slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()]
        self._logics += [getattr(slicer, name)() for name in _LOGICS]
        for logic in self._logics:
            logic.SetMRMLApplicationLogic(self.application)
            logic.SetMRMLScene(self.scene)
        colours.AddDefaultColorNodes()
        remote, data = self._logics[1:3]
        data.SetAndObserveDataIOManager(remote.GetDataIOManager())
        remote.AddDataIOToScene()
        self.hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)

    def close(self) -> None:
        """Take the scene apart in the order the application does; left to the garbage collector it may crash."""
        self.scene.Clear(True)
        for logic in reversed(self._logics):
            logic.SetMRMLScene(None)
            logic.SetMRMLApplicationLogic(None)
        self._logics.clear()
        self.application.SetMRMLScene(None)

    def add_volume(self, voxels: np.ndarray, ijk_to_ras: np.ndarray, name: str = "CT") -> Any:
        """A displayed scalar volume of voxels [k, j, i]."""
        node = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        image = vtk.vtkImageData()
        image.SetDimensions(*voxels.shape[::-1])
        image.GetPointData().SetScalars(numpy_to_vtk(voxels.ravel(), deep=True))
        node.SetAndObserveImageData(image)
        node.SetIJKToRASMatrix(vtk_matrix(ijk_to_ras))
        node.CreateDefaultDisplayNodes()
        return node

    def add_transform(self, matrix: np.ndarray, name: str = "moved") -> Any:
        """A linear transform node."""
        node = self.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
        node.SetMatrixTransformToParent(vtk_matrix(matrix))
        return node

    def add_slice_view(self, name: str, orientation: str) -> Any:
        """A slice view without a window: its logic, which composites its layers on the CPU."""
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene)
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(self.application)
        logic.SetMRMLScene(self.scene)
        node = logic.AddSliceNode(name)
        node.SetOrientation(orientation)
        self._logics.append(logic)
        return logic

    def identities(self) -> list[tuple[str, str]]:
        """Class and ID of every node."""
        nodes = [self.scene.GetNthNode(index) for index in range(self.scene.GetNumberOfNodes())]
        return [(node.GetClassName(), node.GetID()) for node in nodes]

    def items(self) -> list[str]:
        """The subject hierarchy, an item a line, indented."""
        return list(self._lines(self.hierarchy.GetSceneItemID(), 0))

    def _lines(self, item: int, depth: int):
        children = vtk.vtkIdList()
        self.hierarchy.GetItemChildren(item, children, False)
        for index in range(children.GetNumberOfIds()):
            yield "  " * depth + self.hierarchy.GetItemName(children.GetId(index))
            yield from self._lines(children.GetId(index), depth + 1)


def vtk_matrix(array: np.ndarray) -> Any:
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, dtype=float).ravel().tolist())
    return matrix


def array_of(volume_node: Any) -> np.ndarray:
    """The voxels [k, j, i] of a volume node, through Slicer's own tool."""
    return slicer.util.arrayFromVolume(volume_node)


def ras_of(volume_node: Any, ijk: Any) -> np.ndarray:
    """Where voxel centres are seen in the world, RAS mm, through VTK: node matrix, then parent transforms."""
    matrix, to_world = vtk.vtkMatrix4x4(), vtk.vtkGeneralTransform()
    volume_node.GetIJKToRASMatrix(matrix)
    if volume_node.GetParentTransformNode() is not None:
        volume_node.GetParentTransformNode().GetTransformToWorld(to_world)
    return np.array([to_world.TransformPoint(matrix.MultiplyPoint([*map(float, point), 1.0])[:3]) for point in ijk])


def column_of(table_node: Any, name: str) -> list[Any]:
    column = table_node.GetTable().GetColumnByName(name)
    return [column.GetValue(row) for row in range(column.GetNumberOfValues())]


def composite_of(logic: Any, pixels: tuple[int, int], field_mm: tuple[float, float]) -> np.ndarray:
    """What a slice view shows, RGBA uint8 [row, column] with row 0 at the top."""
    logic.GetSliceNode().SetDimensions(*pixels, 1)
    logic.GetSliceNode().SetFieldOfView(*field_mm, 1)
    logic.UpdatePipeline()
    blend = logic.GetBlend()
    blend.Update()
    image = blend.GetOutput()
    columns, rows, _ = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, -1)[::-1]
