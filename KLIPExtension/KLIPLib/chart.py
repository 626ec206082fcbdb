"""The slice-score curve as a chart: score over position, the threshold, and the findings as points on it."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from .tables import FINDING, POSITION, SCORE, THRESHOLD

_CURVE_COLOUR, _THRESHOLD_COLOUR, _MARK_COLOUR = (0.15, 0.35, 0.65), (0.45, 0.45, 0.45), (0.84, 0.3, 0.1)


def fill_chart(result: Any, title: str) -> None:
    """Wire the chart of a result to its tables: a change of the tables is a change of the chart."""
    series = slicer.vtkMRMLPlotSeriesNode
    _wire(result.curve, result.slices, SCORE, "Name", _CURVE_COLOUR)
    result.curve.SetMarkerStyle(series.MarkerStyleCircle)
    result.curve.SetMarkerSize(5)
    _wire(result.threshold, result.slices, THRESHOLD, "", _THRESHOLD_COLOUR)
    result.threshold.SetMarkerStyle(series.MarkerStyleNone)
    result.threshold.SetLineStyle(series.LineStyleDash)
    _wire(result.marks, result.findings, SCORE, FINDING, _MARK_COLOUR)
    result.marks.SetLineStyle(series.LineStyleNone)
    result.marks.SetMarkerStyle(series.MarkerStyleDiamond)
    result.marks.SetMarkerSize(11)
    chart = result.chart
    for node in (result.curve, result.threshold, result.marks):
        chart.AddAndObservePlotSeriesNodeID(node.GetID())
    chart.SetTitle(title)
    chart.SetXAxisTitle(_("position S in mm (feet to head)"))
    chart.SetYAxisTitle(_("score"))


def _wire(
    series: Any, table_node: Any, y_column: str, label_column: str, colour: tuple[float, float, float]
) -> None:
    series.SetAndObserveTableNodeID(table_node.GetID())
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    series.SetXColumnName(POSITION)
    series.SetYColumnName(y_column)
    series.SetLabelColumnName(label_column)
    series.SetColor(*colour)
