"""The findings as a segmentation: a segment each, on the grid of the label map, named, coloured by score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from .geometry import Matrix, vtk_matrix


def fill_segmentation(
    segmentation_node: Any,
    labels: npt.NDArray[np.uint16],
    ijk_to_ras: Matrix,
    names: Sequence[str],
    colours: Sequence[tuple[float, float, float]],
) -> None:
    """Replace all segments by one per label of a label map [k, j, i] (label n has the n-th name and colour).

    ijk_to_ras: 4 x 4 of the grid, in the segmentation node's own RAS mm. The segment of label n has the ID
    `finding-n` and holds only the voxels around its finding, so that hundreds of findings in a large scan stay
    quick and small.
    """
    segmentation = segmentation_node.GetSegmentation()
    was_modifying = segmentation_node.StartModify()
    try:
        segmentation.RemoveAllSegments()
        for label, box in label_boxes(labels):
            segment = slicer.vtkSegment()
            segment.SetName(names[label - 1])
            segment.SetColor(*colours[label - 1])
            representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
            segment.AddRepresentation(representation, _labelmap(labels[box] == label, box, ijk_to_ras))
            segmentation.AddSegment(segment, f"finding-{label}")
    finally:
        segmentation_node.EndModify(was_modifying)


def show_segmentation(segmentation_node: Any, regions_node: Any) -> None:
    """On the grid of the label map; outlines on slices (the label map fills them), surfaces in 3D."""
    segmentation_node.SetAndObserveTransformNodeID(regions_node.GetTransformNodeID())
    # After the transform: the geometry is kept relative to it.
    segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(regions_node)
    segmentation_node.CreateDefaultDisplayNodes()
    display = segmentation_node.GetDisplayNode()
    display.SetVisibility2DFill(False)
    display.SetVisibility2DOutline(True)


def make_surfaces(segmentation_node: Any) -> None:
    """Closed surfaces of all segments, for 3D views."""
    segmentation_node.CreateClosedSurfaceRepresentation()


def has_surfaces(segmentation_node: Any) -> bool:
    """Whether closed surfaces were made."""
    name = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    return bool(segmentation_node.GetSegmentation().ContainsRepresentation(name))


def label_boxes(labels: npt.NDArray[np.uint16]) -> Iterator[tuple[int, tuple[slice, slice, slice]]]:
    """Each label of a label map that is in it, and its bounding box as slices [k, j, i].

    Findings are few voxels among many: one pass looks for them, all else looks at them alone.
    """
    places = np.flatnonzero(labels)
    values = labels.reshape(-1)[places]
    order = np.argsort(values, kind="stable")
    values, places = values[order], places[order]
    starts = np.flatnonzero(np.diff(values, prepend=0))
    if not starts.size:
        return
    axes = np.unravel_index(places, labels.shape)
    lows = [np.minimum.reduceat(axis, starts) for axis in axes]
    highs = [np.maximum.reduceat(axis, starts) + 1 for axis in axes]
    for index, start in enumerate(starts):
        box = [slice(int(low[index]), int(high[index])) for low, high in zip(lows, highs, strict=True)]
        yield int(values[start]), (box[0], box[1], box[2])


def _labelmap(mask: npt.NDArray[np.bool_], box: tuple[slice, slice, slice], ijk_to_ras: Matrix) -> Any:
    """A mask [k, j, i] as vtkOrientedImageData on its part of the grid."""
    image = slicer.vtkOrientedImageData()
    image.SetExtent([edge for axis in box[::-1] for edge in (axis.start, axis.stop - 1)])
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    np.copyto(vtk_to_numpy(image.GetPointData().GetScalars()).reshape(mask.shape), mask)
    image.SetGeometryFromImageToWorldMatrix(vtk_matrix(ijk_to_ras))
    return image
