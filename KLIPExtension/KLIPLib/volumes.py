"""The three maps of a result as volumes of the scene: voxels from the engine's files, window, colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import vtk
from vtk.util.numpy_support import get_vtk_array_type, vtk_to_numpy

from klip_engine.errors import InputError

from .colours import ScoreScale
from .geometry import Placement, set_ijk_to_ras

CT_WINDOW = (400.0, 40.0)
"""Width and level in HU where there is no input whose window could be shared."""


def read_map(path: Path, size: tuple[int, int, int]) -> Any:
    """A map of the engine as a SimpleITK image of that many voxels (i, j, k); InputError when it is not one."""
    import SimpleITK as sitk  # at first use: the start of Slicer does not wait for it

    if path.name == "reconstruction.nrrd" and path.with_suffix(".png").exists():
        raise InputError("these are the results of a photograph, which has no place in a patient; open report.html")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path.name} of the results cannot be read; run the detection again") from error
    if image.GetSize() != size:
        raise InputError(f"{path.name} does not fit the other maps of the results; run the detection again")
    return image


def set_image(volume_node: Any, image: Any, place: Placement) -> None:
    """Give a node the voxels of a SimpleITK image, and its place."""
    import SimpleITK as sitk

    set_voxels(volume_node, sitk.GetArrayViewFromImage(image), place)


def set_voxels(volume_node: Any, voxels: npt.NDArray[Any], place: Placement) -> None:
    """Give a node voxels [k, j, i] of their own type (copied once), and its place."""
    image_data = vtk.vtkImageData()
    image_data.SetDimensions(*voxels.shape[::-1])
    image_data.AllocateScalars(get_vtk_array_type(voxels.dtype), 1)
    np.copyto(voxels_of(image_data), voxels)
    set_ijk_to_ras(volume_node, place.ijk_to_ras)
    volume_node.SetAndObserveImageData(image_data)
    volume_node.SetAndObserveTransformNodeID(place.transform_id)


def voxels_of(image_data: Any) -> npt.NDArray[Any]:
    """The voxels [k, j, i] of a vtkImageData, not copied."""
    return vtk_to_numpy(image_data.GetPointData().GetScalars()).reshape(image_data.GetDimensions()[::-1])


def show_as_ct(volume_node: Any, input_node: Any) -> None:
    """Grey, in the window the input is seen in: the two are there to be compared."""
    volume_node.CreateDefaultDisplayNodes()
    display = volume_node.GetDisplayNode()
    shown = input_node.GetScalarVolumeDisplayNode() if input_node is not None else None
    width, level = (shown.GetWindow(), shown.GetLevel()) if shown is not None else CT_WINDOW
    display.AutoWindowLevelOff()
    display.SetWindowLevel(width, level)


def show_as_heat_map(volume_node: Any, colour_node: Any, scale: ScoreScale) -> None:
    """In the colours of scores from 0 to the top of the scale; transparent where the score says nothing."""
    volume_node.CreateDefaultDisplayNodes()
    display = volume_node.GetDisplayNode()
    display.SetAndObserveColorNodeID(colour_node.GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0.0, scale.top)
    display.AutoThresholdOff()
    display.SetThreshold(scale.visible_from, 1e30)
    display.ApplyThresholdOn()


def show_as_labels(volume_node: Any, colour_node: Any) -> None:
    """In the colours of its findings."""
    volume_node.CreateDefaultDisplayNodes()
    volume_node.GetDisplayNode().SetAndObserveColorNodeID(colour_node.GetID())
