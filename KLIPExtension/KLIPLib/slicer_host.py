"""3D Slicer as the module's host: the only file that asks the running application for anything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qt
import slicer

from .host import Host

_OWN_PYTHON = "KLIP/PythonEnvironment"


def slicer_host() -> Host:
    """The running application."""
    return Host(
        scene=slicer.mrmlScene,
        python=Path(shutil.which("PythonSlicer") or "PythonSlicer"),
        environment=os.environ,
        outer_environment=slicer.util.startupEnvironment(),
        temporary_folder=Path(slicer.app.temporaryPath) / "KLIP",
        make_ticker=_Timer,
        process_events=slicer.app.processEvents,
        ensure_dependencies=_ensure_dependencies,
        show_chart=_show_chart,
        open_file=lambda path: qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path))),
        dicom_files=_dicom_files,
        add_dicom=_add_dicom,
        busy=_busy,
        fit_views=slicer.util.resetSliceViews,
        own_python=lambda: str(slicer.app.userSettings().value(_OWN_PYTHON) or ""),
        set_own_python=lambda path: slicer.app.userSettings().setValue(_OWN_PYTHON, path),
    )


class _Timer:
    """A running QTimer. Stopped it is deleted: while it is there, so is all that its callback holds."""

    def __init__(self, interval_ms: int, callback: Callable[[], None]) -> None:
        self._timer = qt.QTimer()
        self._timer.setInterval(interval_ms)
        self._timer.timeout.connect(callback)
        self._timer.start()

    def stop(self) -> None:
        """Call back no more; also from within the callback, so it goes with the next turn of the event loop."""
        self._timer.stop()
        self._timer.deleteLater()


@contextmanager
def _busy() -> Iterator[None]:
    """A waiting cursor. Slicer's own lets the event loop run first, and in it a scene could be closed under us."""
    qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
    try:
        yield
    finally:
        qt.QApplication.restoreOverrideCursor()


def _ensure_dependencies() -> None:
    from .dependencies import ensure

    ensure()


_chart_connections: list[tuple[Any, Any]] = []
"""The plot view that tells of clicks, one at a time: a view shown twice must not jump twice."""


def _show_chart(chart_node: Any, clicked: Callable[[str, int], None]) -> None:
    """In the current layout with a plot view added. The view selects points, so that a click can tell of one."""
    slicer.modules.plots.logic().ShowChartInLayout(chart_node)
    widget = slicer.app.layoutManager().plotWidget(0)
    widget.mrmlPlotViewNode().SetInteractionMode(slicer.vtkMRMLPlotViewNode.InteractionModeSelectPoints)

    def selected(series_ids: Any, points: Any) -> None:
        for number in range(series_ids.GetNumberOfValues()):
            chosen = points.GetItemAsObject(number)
            if chosen is not None and chosen.GetNumberOfValues():
                clicked(series_ids.GetValue(number), int(chosen.GetValue(0)))
                return

    while _chart_connections:
        signal, slot = _chart_connections.pop()
        signal.disconnect(slot)
    signal = widget.plotView().dataSelected
    signal.connect(selected)
    _chart_connections.append((signal, selected))


def _dicom_files(instance_uids: list[str]) -> list[str]:
    files = [slicer.dicomDatabase.fileForInstance(uid) for uid in instance_uids]
    return [file for file in files if file]


def _add_dicom(folder: Path) -> None:
    from DICOMLib import DICOMUtils

    if not DICOMUtils.importDicom(str(folder), slicer.dicomDatabase, copyFiles=True):
        raise RuntimeError("Slicer's DICOM import failed; see its log")
