"""The part of the panel that shows a run: progress, times, log, and the sentence when it ends without a result."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from .command import RunSettings
from .detector import Detector
from .lines import Progress
from .outcome import EngineCancelled
from .words import status_words

_CLOCK_MS = 500
_MARKS = 1000
"""Steps of the progress bar."""


class RunPanel:
    """Holds the one run of the panel."""

    def __init__(self, ui: Any, detector: Detector, ended: Callable[[Any], None]) -> None:
        """ended: called with the result of a run, or None when there is none."""
        self.ui, self._detector, self._ended = ui, detector, ended
        self.run: Any = None
        self._progress: Progress | None = None
        self._warnings: list[str] = []
        self._told = 0.0
        self._stopping = False
        self._starting = False
        """Packages are asked for and installed at the start, with a window of their own: Apply stays clickable."""
        self._clock: Any = None
        ui.progressBar.setVisible(False)
        ui.statusLabel.setVisible(False)
        ui.showLogButton.setVisible(False)
        ui.showLogButton.clicked.connect(self._unfold_log)

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self.run is not None and self.run.running

    def start(self, source: Any, settings: RunSettings, **where: Any) -> None:
        """Start a run; where: `python` and `results_folder` of `Detector.detect`. Errors are shown, not raised."""
        if self._starting:
            return
        self.ui.logText.clear()
        self._progress, self._stopping, self._starting = None, False, True
        self._warnings.clear()
        try:
            self.run = self._detector.detect(
                source,
                settings,
                progress=self._show_progress,
                warned=self._warn,
                log=self._show_log,
                done=self._done,
                failed=self._failed,
                **where,
            )
        except Exception as error:  # whatever keeps a run from starting is said where the user looks
            self._say(str(error)[:1].upper() + str(error)[1:], failed=True)
            return
        finally:
            self._starting = False
        self.ui.progressBar.setRange(0, 0)
        self.ui.progressBar.setVisible(True)
        self.ui.showLogButton.setVisible(False)
        self._clock = self._detector.host.make_ticker(_CLOCK_MS, self._show_time)
        self._show_time()

    def cancel(self, *_arguments: Any) -> None:
        """Stop the run."""
        if self.running:
            self._stopping = True
            self.run.cancel()
            self.ui.cancelButton.setEnabled(False)
            self._say(_("Stopping…"))

    def end_now(self) -> None:
        """Stop the run and wait until it is gone."""
        if self.running:
            self.run.end_now()

    def _show_progress(self, progress: Progress) -> None:
        self._progress, self._told = progress, time.monotonic()
        self.ui.progressBar.setRange(0, _MARKS)
        self.ui.progressBar.setValue(round(_MARKS * progress.fraction))
        self._show_time()

    def _show_time(self) -> None:
        if self.running and not self._stopping:
            status = status_words(self._progress, self.run.elapsed_s, time.monotonic() - self._told)
            self._say("\n".join([status, *self._warnings]))

    def _warn(self, sentence: str) -> None:
        """Said while there is still time to cancel; the result says it too."""
        self._warnings.append(_("Warning: {sentence}").format(sentence=sentence))
        self._show_time()

    def _show_log(self, lines: list[str]) -> None:
        self.ui.logText.appendPlainText("\n".join(lines))

    def _done(self, result: Any) -> None:
        self._stop_clock()
        self.run = None  # it holds the result, which the scene may lose
        self.ui.statusLabel.setVisible(False)
        self._ended(result)

    def _failed(self, error: Exception) -> None:
        self._stop_clock()
        self.run = None
        self._say(str(error), failed=not isinstance(error, EngineCancelled))
        self._ended(None)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.stop()
            self._clock = None
        self.ui.progressBar.setVisible(False)

    def _say(self, text: str, failed: bool = False) -> None:
        self.ui.statusLabel.setText(text)
        self.ui.statusLabel.setStyleSheet("color: #b3261e; font-weight: bold;" if failed else "")
        self.ui.statusLabel.setVisible(True)
        self.ui.showLogButton.setVisible(failed)

    def _unfold_log(self, *_arguments: Any) -> None:
        self.ui.logButton.setProperty("collapsed", False)
