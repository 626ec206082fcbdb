"""Shows a result in the slice views of its scene: CT, heat map of the score above it, regions above both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def show(
    result: Any, *, heat_map: bool = True, heat_map_opacity: float = 0.5, overlay_opacity: float = 0.5
) -> None:
    """Make a result the layers of all slice views: its input (or else the reconstruction), score and regions.

    Opacities from 0 to 1; without the heat map only the regions lie above the CT.
    """
    background = result.input_node or result.reconstruction
    for view in _composites(result.scene):
        was_modifying = view.StartModify()
        view.SetBackgroundVolumeID(background.GetID())
        view.SetForegroundVolumeID(result.score.GetID())
        view.SetForegroundOpacity(heat_map_opacity if heat_map else 0.0)
        view.SetLabelVolumeID(result.regions.GetID())
        view.SetLabelOpacity(overlay_opacity)
        view.EndModify(was_modifying)
    set_overlay_opacity(result, overlay_opacity)


def set_heat_map(result: Any, on: bool, opacity: float = 0.5) -> None:
    """Switch the heat map on or off in the views that show this result."""
    for view in _views_of(result):
        view.SetForegroundVolumeID(result.score.GetID())
        view.SetForegroundOpacity(opacity if on else 0.0)


def set_overlay_opacity(result: Any, opacity: float) -> None:
    """How strongly the regions cover the CT, from 0 to 1: the filled label map and the outlines of the segments."""
    for view in _views_of(result):
        view.SetLabelOpacity(opacity)
    display = result.segmentation.GetDisplayNode()
    if display is not None:
        display.SetOpacity2DOutline(min(1.0, 2 * opacity))


def hide(result: Any) -> None:
    """Take a result out of the slice views that show it; where it was the background, its input takes its place."""
    mine = {node.GetID() for node in result.nodes.values()}
    background = result.input_node if "regions" in result.nodes else None
    for view in _composites(result.scene):
        if view.GetBackgroundVolumeID() in mine:
            view.SetBackgroundVolumeID(background.GetID() if background is not None else None)
        if view.GetForegroundVolumeID() in mine:
            view.SetForegroundVolumeID(None)
        if view.GetLabelVolumeID() in mine:
            view.SetLabelVolumeID(None)


def _views_of(result: Any) -> Iterator[Any]:
    regions = result.regions.GetID()
    return (view for view in _composites(result.scene) if view.GetLabelVolumeID() == regions)


def _composites(scene: Any) -> Iterator[Any]:
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        yield scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode")
