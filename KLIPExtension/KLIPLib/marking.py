"""What the accepted rate of false alarms decides: label map, segmentation, tables, and through them the chart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .colours import ScoreScale, fill_region_colours
from .geometry import local_ijk_to_ras
from .segments import fill_segmentation
from .tables import fill_findings_table, fill_slices_table, finding_name
from .volumes import voxels_of

THRESHOLD, FALSE_ALARMS = "KLIP.Threshold", "KLIP.FalseAlarms"
"""Attributes of every node of a result: what it is marked by now."""


def mark(
    result: Any,
    labels: npt.NDArray[np.uint16] | None,
    findings: Sequence[dict[str, Any]],
    slices: Sequence[dict[str, Any]],
    scale: ScoreScale,
    *,
    threshold: float | None,
    false_alarms: float,
) -> None:
    """Mark findings in the nodes of a result that are already there and placed; they keep their IDs.

    labels: label map [k, j, i] on the grid of `result.regions`, None where its voxels hold it already; findings,
    slices and threshold as in findings.json.
    """
    names = [finding_name(finding) for finding in findings]
    colours = [scale.colour(scale.top if f["score"] is None else f["score"]) for f in findings]
    fill_region_colours(result.region_colours, names, colours)
    if labels is not None:
        _set_labels(result.regions, labels)
    fill_segmentation(
        result.segmentation,
        voxels_of(result.regions.GetImageData()),
        local_ijk_to_ras(result.regions),
        names,
        colours,
    )
    fill_findings_table(result.findings, findings)
    fill_slices_table(result.slices, slices, threshold)
    for node in result.nodes.values():
        node.SetAttribute(THRESHOLD, "" if threshold is None else repr(float(threshold)))
        node.SetAttribute(FALSE_ALARMS, repr(float(false_alarms)))


def _set_labels(regions_node: Any, labels: npt.NDArray[np.uint16]) -> None:
    """Into the voxels that are there: no second label map in memory."""
    image_data = regions_node.GetImageData()
    np.copyto(voxels_of(image_data), labels)
    image_data.GetPointData().GetScalars().Modified()
    image_data.Modified()
    regions_node.Modified()
