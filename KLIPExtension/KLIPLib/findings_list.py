"""The findings of a result as a list of the panel: a row each, a click brings all views there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _


class FindingsList:
    """A QTableWidget that shows the table node of a result."""

    def __init__(self, widget: Any, chosen: Callable[[int], None]) -> None:
        """chosen: called with the label of the finding a user clicked, or moved to by keyboard."""
        self._widget, self._chosen = widget, chosen
        self._labels: list[int] = []
        self._filling = False
        headers = [_("Finding"), _("p-value"), _("Score"), _("Volume (ml)"), _("Slices")]
        widget.setColumnCount(len(headers))
        widget.setHorizontalHeaderLabels(headers)
        widget.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        widget.cellClicked.connect(self._clicked)
        widget.currentCellChanged.connect(self._moved)

    def show(self, result: Any) -> None:
        """Show the findings of a result, or none at all for None."""
        table = result.findings.GetTable() if result is not None else None
        rows = table.GetNumberOfRows() if table is not None else 0
        self._filling = True
        try:
            self._widget.setRowCount(0)
            self._widget.setRowCount(rows)
            self._labels = [self._fill(table, row) for row in range(rows)]
        finally:
            self._filling = False

    def _fill(self, table: Any, row: int) -> int:
        def value(column: str) -> Any:
            return table.GetColumnByName(column).GetValue(row)

        first, last = value("First slice"), value("Last slice")
        slices = str(first) if first == last else f"{first}-{last}"
        texts = [str(value("Label")), *(_digits(value(c)) for c in ("p-value", "Score", "Volume (ml)")), slices]
        for column, text in enumerate(texts):
            item = qt.QTableWidgetItem(text)
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            self._widget.setItem(row, column, item)
        return int(value("Label"))

    def _clicked(self, row: int, column: int = 0) -> None:
        if 0 <= row < len(self._labels):
            self._chosen(self._labels[row])

    def _moved(self, row: int, column: int = 0, row_before: int = -1, column_before: int = -1) -> None:
        if not self._filling and row != row_before:
            self._clicked(row)


def _digits(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.3g}"
