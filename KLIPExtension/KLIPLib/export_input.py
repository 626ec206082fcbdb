"""Hands a volume of the scene to the engine: a NRRD file that lies where the volume is seen in the world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from klip_engine.errors import InputError, ResourceError

from .geometry import LPS_RAS, Matrix, local_ijk_to_ras, parent_to_world, volume_size
from .volumes import voxels_of

_SHEAR = 1e-4
"""Largest cosine between two axes of a volume that still counts as a right angle."""


def export_input(volume_node: Any, path: Path) -> None:
    """Write a scalar volume as NRRD: its voxels as they are, its parent transforms composed into LPS mm.

    Raises InputError when the node holds no CT volume or lies below a transform a file cannot express,
    ResourceError when the file cannot be written.
    """
    matrix = checked_ijk_to_lps(volume_node)
    import SimpleITK as sitk  # at first use: the start of Slicer does not wait for it

    image = sitk.GetImageFromArray(voxels_of(volume_node.GetImageData()))
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    try:
        sitk.WriteImage(image, str(path), useCompression=False)
    except RuntimeError as error:
        raise ResourceError(f"{Path(path).name} could not be written for the engine: is the disk full?") from error


def checked_ijk_to_lps(volume_node: Any) -> Matrix:
    """4 x 4 from voxel index to LPS mm of the world, of a volume the engine can take; quick, also for a panel.

    Raises InputError with one sentence that says what to do, where it cannot.
    """
    if volume_node is None:
        raise InputError("no volume is chosen; choose the CT to look at")
    name = volume_node.GetName()
    if not _holds_scalars(volume_node):
        raise InputError(f"{name} is not a scalar volume; choose a CT volume")
    if 0 in volume_size(volume_node):
        raise InputError(f"{name} holds no voxels; load its image or choose another volume")
    matrix = LPS_RAS @ parent_to_world(volume_node) @ local_ijk_to_ras(volume_node)
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.isfinite(matrix).all() or lengths.min() <= 0:
        raise InputError(f"{name} has voxels without a size; correct its spacing in the module Volumes")
    axes = matrix[:3, :3] / lengths
    if np.abs(axes.T @ axes - np.eye(3)).max() > _SHEAR:
        raise InputError(
            f"the axes of {name} are not at right angles (a shearing transform, or a tilted gantry); "
            "resample it with the module Resample Scalar Volume or Crop Volume and try again"
        )
    return matrix


def _holds_scalars(node: Any) -> bool:
    """Label maps, colour and tensor volumes descend from the scalar volume too, and sit in the same selectors."""
    if not node.IsA("vtkMRMLScalarVolumeNode") or node.IsA("vtkMRMLLabelMapVolumeNode"):
        return False
    if node.IsA("vtkMRMLTensorVolumeNode"):
        return False
    image = node.GetImageData()
    return image is None or image.GetNumberOfScalarComponents() == 1
