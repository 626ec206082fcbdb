"""Starts detections and keeps track of them: each in its own process and folder, all ended with the scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer

from .command import RunSettings
from .detection_run import DetectionRun
from .dicom_export import DicomExport
from .host import Host


class Detector:
    """What the module can do with a scene, for the panel and for the Python console."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._runs: list[DetectionRun | DicomExport] = []
        self._observation = host.scene.AddObserver(slicer.vtkMRMLScene.StartCloseEvent, self._scene_closes)

    @property
    def running(self) -> list[DetectionRun | DicomExport]:
        """The runs that have not ended."""
        self._runs = [run for run in self._runs if run.running]
        return list(self._runs)

    def detect(
        self,
        source: Any,
        settings: RunSettings,
        *,
        python: str = "",
        results_folder: str | Path = "",
        **callbacks: Callable[[Any], None] | None,
    ) -> DetectionRun:
        """Start a detection in a volume node or a file; see `DetectionRun` for callbacks, `Host.engine` for python.

        Raises InputError, FileNotFoundError or RuntimeError, each with a sentence, when it cannot start.
        """
        engine = self.host.engine(python)
        folder = Path(results_folder) if results_folder else None
        run = DetectionRun(self.host, engine, source, settings, results_folder=folder, **callbacks)  # type: ignore[arg-type]
        self._runs = [*self.running, run]
        return run

    def export_dicom(self, result: Any, *, python: str = "", **callbacks: Any) -> DicomExport:
        """Write a result as DICOM objects and take them into the DICOM database; see `DicomExport`."""
        export = DicomExport(self.host, self.host.engine(python), result, **callbacks)
        self._runs = [*self.running, export]
        return export

    def end_all(self) -> None:
        """Stop what is running and wait until it is gone."""
        for run in self.running:
            run.end_now()

    def close(self) -> None:
        """For the end of the module: stop all, and look at the scene no more."""
        self.end_all()
        self.host.scene.RemoveObserver(self._observation)

    def _scene_closes(self, caller: Any = None, event: str = "") -> None:
        self.end_all()
