"""Where a volume node lies: matrices in Slicer's RAS mm, and the one place where RAS meets the engine's LPS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import vtk

from klip_engine.errors import InputError

Matrix = npt.NDArray[np.float64]
LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""LPS to RAS and back (DICOM PS3.3 C.7.6.2.1.1 against Slicer's world)."""
_SAME_PLACE = 0.01
"""Two grids are the same where no corner is farther off than this share of a voxel."""


@dataclass(frozen=True)
class Placement:
    """Where results lie in the scene.

    ijk_to_ras: 4 x 4, of the nodes themselves; transform_id: the parent transform they observe, or None;
    run_to_local: 4 x 4 from the RAS of the world at the time of the run to the nodes' own RAS; moved: the input has
    been moved since, and the results lie where it was.
    """

    ijk_to_ras: Matrix
    transform_id: str | None
    run_to_local: Matrix
    moved: bool = False


def placement(input_node: Any, run_ijk_to_ras: Matrix, size: tuple[int, int, int]) -> Placement:
    """The place of results computed on a grid (4 x 4 IJK to RAS of the world, voxels along i, j, k).

    On the grid of `input_node` exactly, below the same transform, where that is the same place in the world; where
    the volume was moved since, or without an input node, where the results say.
    Raises InputError when the results cannot be this volume's: another number of voxels.
    """
    if input_node is None:
        return Placement(run_ijk_to_ras, None, np.eye(4))
    if volume_size(input_node) != size:
        raise InputError(
            f"the results have {_text(size)} voxels and the volume {input_node.GetName()} has "
            f"{_text(volume_size(input_node))}; choose the volume they were computed from"
        )
    local, to_world = local_ijk_to_ras(input_node), parent_to_world(input_node)
    if not _same_place(to_world @ local, run_ijk_to_ras, size):
        return Placement(run_ijk_to_ras, None, np.eye(4), moved=True)
    return Placement(local, input_node.GetTransformNodeID(), np.linalg.inv(to_world))


def local_ijk_to_ras(volume_node: Any) -> Matrix:
    """4 x 4 from voxel index (i, j, k) to the node's own RAS mm, without its parent transform."""
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    return numpy_matrix(matrix)


def parent_to_world(node: Any) -> Matrix:
    """4 x 4 of the transforms above a node, in RAS mm. Raises InputError when they bend space."""
    transform_node = node.GetParentTransformNode()
    if transform_node is None:
        return np.eye(4)
    matrix = vtk.vtkMatrix4x4()
    if not transform_node.IsTransformToWorldLinear() or not transform_node.GetMatrixTransformToWorld(matrix):
        raise InputError(
            f"{node.GetName()} is below a transform that is not linear ({transform_node.GetName()}); "
            "harden the transform on the volume and try again"
        )
    return numpy_matrix(matrix)


def volume_size(volume_node: Any) -> tuple[int, int, int]:
    """Voxels along (i, j, k); zeros for a volume without an image."""
    image = volume_node.GetImageData()
    return (0, 0, 0) if image is None else tuple(image.GetDimensions())


def set_ijk_to_ras(volume_node: Any, matrix: Matrix) -> None:
    """Place a volume node: 4 x 4 from voxel index to the node's own RAS mm."""
    volume_node.SetIJKToRASMatrix(vtk_matrix(matrix))


def numpy_matrix(matrix: Any) -> Matrix:
    """A vtkMatrix4x4 as an array."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def vtk_matrix(array: Matrix) -> Any:
    """An array [4, 4] as a vtkMatrix4x4."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, dtype=float).ravel().tolist())
    return matrix


def moved_point(matrix: Matrix, point: Any) -> tuple[float, float, float]:
    """A point in mm after a 4 x 4 matrix."""
    x, y, z = (np.asarray(matrix) @ [*map(float, point), 1.0])[:3]
    return float(x), float(y), float(z)


def _same_place(one: Matrix, other: Matrix, size: tuple[int, int, int]) -> bool:
    corners = np.array(
        [[i, j, k, 1] for i in (0, size[0]) for j in (0, size[1]) for k in (0, size[2])], dtype=float
    )
    distance = np.linalg.norm(corners @ (one - other).T, axis=1).max()
    return bool(distance <= _SAME_PLACE * np.linalg.norm(one[:3, :3], axis=0).min())


def _text(size: tuple[int, int, int]) -> str:
    return " x ".join(str(n) for n in size)
