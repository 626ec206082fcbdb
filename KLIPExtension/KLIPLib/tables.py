"""The findings and the slice scores as tables of the scene, in the RAS mm Slicer shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import vtk

from .geometry import LPS_RAS, moved_point

FINDING, POSITION, SCORE, THRESHOLD = "Finding", "S (mm)", "Score", "Threshold"
"""Columns that the plot and the jumps read too."""


def finding_name(finding: dict[str, Any]) -> str:
    """What a finding is called everywhere: "Finding 3 (p 0.004)"."""
    chance = "" if finding["p_value"] is None else f" (p {finding['p_value']:.2g})"
    return f"Finding {finding['label']}{chance}"


def fill_findings_table(table_node: Any, findings: Sequence[dict[str, Any]]) -> None:
    """One row per finding, the strongest first; `findings` as in findings.json, where unknown numbers are None."""
    centres = [moved_point(LPS_RAS, finding["centroid_lps_mm"]) for finding in findings]
    _fill(
        table_node,
        [
            _integers("Label", [f["label"] for f in findings]),
            _texts(FINDING, [finding_name(f) for f in findings]),
            _numbers("p-value", [f["p_value"] for f in findings]),
            _numbers(SCORE, [f["score"] for f in findings]),
            _numbers("Volume (ml)", [f["volume_ml"] for f in findings]),
            *(_numbers(f"{axis} (mm)", [c[n] for c in centres]) for n, axis in enumerate("RAS")),
            _integers("First slice", [f["slice_range"][0] for f in findings]),
            _integers("Last slice", [f["slice_range"][1] for f in findings]),
        ],
    )


def fill_slices_table(table_node: Any, slices: Sequence[dict[str, Any]], threshold: float | None) -> None:
    """One row per slice from feet to head; `slices` and `threshold` as in findings.json."""
    ordered = sorted(slices, key=lambda entry: entry["position_mm"])
    _fill(
        table_node,
        [
            _integers("Slice", [s["index"] for s in ordered]),
            _numbers(POSITION, [s["position_mm"] for s in ordered]),
            _numbers(SCORE, [s["score"] for s in ordered]),
            _numbers("p-value", [s["p_value"] for s in ordered]),
            _numbers(THRESHOLD, [threshold] * len(ordered)),
            _texts("Name", [f"Slice {s['index']}" for s in ordered]),
        ],
    )


def _fill(table_node: Any, columns: Sequence[Any]) -> None:
    """Replace the content in one go: whoever watches the table sees it before or after, not between."""
    table = vtk.vtkTable()
    for column in columns:
        table.AddColumn(column)
    table_node.SetUseColumnTitleAsColumnHeader(True)
    table_node.SetLocked(True)
    table_node.SetAndObserveTable(table)


def _numbers(name: str, values: Sequence[float | None]) -> Any:
    """Real numbers; what is unknown is not a number."""
    return _column(vtk.vtkDoubleArray(), name, [math.nan if value is None else float(value) for value in values])


def _integers(name: str, values: Sequence[int]) -> Any:
    return _column(vtk.vtkIntArray(), name, [int(value) for value in values])


def _texts(name: str, values: Sequence[str]) -> Any:
    return _column(vtk.vtkStringArray(), name, values)


def _column(array: Any, name: str, values: Sequence[Any]) -> Any:
    array.SetName(name)
    for value in values:
        array.InsertNextValue(value)
    return array
