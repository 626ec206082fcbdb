"""Brings all slice views to a finding, or to a slice of the curve."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import slicer

from .geometry import moved_point, parent_to_world
from .result_nodes import RUN_TO_LOCAL
from .tables import POSITION


def jump_to_finding(result: Any, label: int) -> tuple[float, float, float]:
    """Centre all slice views on a finding (1 is the strongest); returns its RAS mm in the world as it is now.

    Raises KeyError when there is no finding of that label.
    """
    table = result.findings.GetTable()
    labels = table.GetColumnByName("Label")
    row = next((n for n in range(labels.GetNumberOfTuples()) if labels.GetValue(n) == label), None)
    if row is None:
        raise KeyError(f"there is no finding {label}")
    point = [table.GetColumnByName(f"{axis} (mm)").GetValue(row) for axis in "RAS"]
    place = moved_point(_run_to_world(result), point)
    slicer.vtkMRMLSliceNode.JumpAllSlices(result.scene, *place, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    return place


def jump_to_slice(result: Any, row: int) -> float:
    """Bring the views that cut the body along S to a row of the slice-score table; returns its S mm as it is now.

    The other views stay where they are. Raises KeyError when there is no such row.
    """
    positions = result.slices.GetTable().GetColumnByName(POSITION)
    if not 0 <= row < positions.GetNumberOfTuples():
        raise KeyError(f"the curve has no point {row}")
    run_to_world = _run_to_world(result)
    middle = moved_point(np.linalg.inv(run_to_world), _middle(result))
    target = moved_point(run_to_world, (middle[0], middle[1], positions.GetValue(row)))
    for index in range(result.scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
        view = result.scene.GetNthNodeByClass(index, "vtkMRMLSliceNode")
        here = [view.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)]
        view.JumpSliceByOffsetting(here[0], here[1], target[2])
    return target[2]


def _run_to_world(result: Any) -> Any:
    """4 x 4 from the world at the time of the run, in which tables and curve count, to the world as it is now."""
    run_to_local = np.array(json.loads(result.regions.GetAttribute(RUN_TO_LOCAL)))
    return parent_to_world(result.regions) @ run_to_local


def _middle(result: Any) -> tuple[float, float, float]:
    """The middle of the volume in the world as it is now."""
    bounds = [0.0] * 6
    result.regions.GetRASBounds(bounds)
    return tuple((bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3))  # type: ignore[return-value]
