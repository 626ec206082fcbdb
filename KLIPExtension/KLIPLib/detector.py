"""Starts detections and keeps track of them: each in its own process and folder, all ended with the scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakMethod

import slicer

from .command import RunSettings
from .detection_run import DetectionRun
from .dicom_export import DicomExport
from .host import Host


class Detector:
    """What the module can do with a scene, for the panel and for the Python console."""

    def __init__(self, host: Host) -> None:
        """It lives as long as someone holds it, or one of its runs lasts: the scene does not hold it."""
        self.host = host
        self._runs: list[DetectionRun | DicomExport] = []
        self._observation = host.scene.AddObserver(slicer.vtkMRMLScene.StartCloseEvent, weakly(self.end_all))

    @property
    def running(self) -> list[DetectionRun | DicomExport]:
        """The runs that have not ended."""
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
        run = DetectionRun(
            self.host, engine, source, settings, results_folder=folder, over=self._forget, **callbacks
        )  # type: ignore[arg-type]
        self._runs.append(run)
        return run

    def export_dicom(self, result: Any, *, python: str = "", **callbacks: Any) -> DicomExport:
        """Write a result as DICOM objects and take them into the DICOM database; see `DicomExport`."""
        export = DicomExport(self.host, self.host.engine(python), result, over=self._forget, **callbacks)
        self._runs.append(export)
        return export

    def end_all(self) -> None:
        """Stop what is running and wait until it is gone."""
        for run in self.running:
            run.end_now()

    def close(self) -> None:
        """For the end of the module: stop all, and look at the scene no more."""
        self.end_all()
        self.host.scene.RemoveObserver(self._observation)

    def _forget(self, run: DetectionRun | DicomExport) -> None:
        self._runs.remove(run)


def weakly(method: Callable[[], None]) -> Callable[..., None]:
    """A function for an observer or a signal that calls a method as long as its object lives, and holds nothing.

    Connected itself, the method would keep a logic of the Python console, with its results, until Slicer ends.
    """
    reference = WeakMethod(method)

    def call(*_arguments: Any) -> None:
        alive = reference()
        if alive is not None:
            alive()

    return call
