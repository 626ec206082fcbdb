"""One run of the engine beside Slicer: started, watched from a timer, cancelled, and cleared away.

No threads and no signals of Qt: `advance` looks at what the engine has printed since the last look, whoever calls
it (a timer of the application, or a loop that waits).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from slicer.i18n import tr as _

from .command import shown
from .lines import GrowingFile, Progress, event_in, event_words, progress_in
from .outcome import End, Outcome, cancelled_sentence, failure_sentence
from .process import ProcessTree
from .run_folder import ERRORS, PRINTED

LOOK_EVERY_MS = 100
GRACE_S = 1.5
"""What a cancelled engine may take to stop by itself before its processes are killed."""
_LOG_LINES = 20_000


class Ticker(Protocol):
    """Something that calls back at an interval until it is stopped; Qt's QTimer is one."""

    def stop(self) -> None:
        """Call back no more."""


MakeTicker = Callable[[int, Callable[[], None]], Ticker]
"""(milliseconds, callback) -> a running ticker."""


class EngineRun:
    """A run of the engine.

    progress: called with the newest progress of each look; warned: with each sentence of the engine about results
    that will need care; log: with new lines of the log; ended: once, with the outcome, when the process tree is
    gone. `log` holds what was printed, the progress lines apart.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        *,
        make_ticker: MakeTicker,
        ended: Callable[[Outcome], None],
        progress: Callable[[Progress], None] | None = None,
        warned: Callable[[str], None] | None = None,
        log: Callable[[list[str]], None] | None = None,
    ) -> None:
        """Start the command in `folder`, which is the run's own and takes its output. Nothing is raised: a command
        that cannot be started has ended by the next look."""
        self.outcome: Outcome | None = None
        self.log: deque[str] = deque(maxlen=_LOG_LINES)
        self._ended, self._progress, self._warned, self._tell_log = ended, progress, warned, log
        self._out, self._err = GrowingFile(folder / PRINTED), GrowingFile(folder / ERRORS)
        self._errors: deque[str] = deque(maxlen=200)
        self._last: dict[str, dict] = {}
        self._began = time.monotonic()
        self._stop_by: float | None = None
        self._tree: ProcessTree | None = None
        self._refused = ""
        self._looking = False
        self._note([shown(command)])
        try:
            self._tree = ProcessTree(command, folder, environment, folder / PRINTED, folder / ERRORS)
        except OSError as error:
            self._refused = _("{program} could not be started: {reason}").format(
                program=command[0], reason=error.strerror or error
            )
        self._ticker: Ticker | None = make_ticker(LOOK_EVERY_MS, self.advance)

    @property
    def running(self) -> bool:
        """Whether the end has not been told yet."""
        return self.outcome is None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def cancel(self) -> None:
        """Ask the engine to stop; its process tree is killed after a grace. `ended` tells when it is gone."""
        if self.running and self._stop_by is None:
            self._stop_by = time.monotonic() + GRACE_S
            self._note([_("Cancelled: the engine is asked to stop.")])
            if self._tree is not None:
                self._tree.ask_to_stop()

    def end_now(self, grace_s: float = GRACE_S) -> None:
        """Cancel and wait: for the end of Slicer, when no timer comes any more."""
        self.cancel()
        until = time.monotonic() + grace_s
        while self.running and time.monotonic() < until:
            time.sleep(0.02)
            self.advance()
        if self.running and self._tree is not None:
            self._stop_by = time.monotonic()
            self._tree.kill()
            self.advance()

    def advance(self) -> None:
        """Look at what is new; called by the ticker."""
        if not self.running or self._looking:
            return
        self._looking = True  # what is told may let the event loop run, and with it the ticker
        try:
            self._look()
        finally:
            self._looking = False

    def _look(self) -> None:
        if self._tree is None:
            self._end(Outcome(End.FAILED, self._refused))
            return
        code = self._tree.exit_code()  # before reading: what is printed after this is read by the next look
        if code is not None and not (self._is_stopping and self._tree.has_others()):
            self._tree.kill()  # what it may have started and left
            self._read(self._out.last_lines(), self._err.last_lines())
            self._end(self._outcome_of(code))
            return
        self._read(self._out.new_lines(), self._err.new_lines())
        if self._stop_by is not None and not self._is_stopping:
            self._tree.kill()

    @property
    def _is_stopping(self) -> bool:
        """Within the grace: PythonSlicer is a launcher that ends at once, before the Python it started has."""
        return self._stop_by is not None and time.monotonic() < self._stop_by

    def _read(self, printed: list[str], errors: list[str]) -> None:
        newest, lines = None, []
        for line in printed:
            event = event_in(line)
            if event is None:
                lines.append(line)
                continue
            newest = progress_in(event) or newest
            if event["event"] != "progress":
                self._last[event["event"]] = event
                lines.append(event_words(event))
            if event["event"] == "warning" and self._warned is not None:
                self._warned(str(event.get("message", "")))
        self._errors.extend(errors)
        self._note([line for line in (*errors, *lines) if line.strip()])
        if newest is not None and self._progress is not None and self._stop_by is None:
            self._progress(newest)

    def _outcome_of(self, code: int) -> Outcome:
        if self._stop_by is not None:
            return Outcome(End.CANCELLED, cancelled_sentence(), code)
        if code == 0 and "done" in self._last:
            return Outcome(End.DONE, "", code, self._last["done"])
        return Outcome(End.FAILED, failure_sentence(code, self._last.get("error"), list(self._errors)), code)

    def _end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        if self._ticker is not None:
            self._ticker.stop()
        if outcome.message:
            self._note([outcome.message])
        self._ended(outcome)

    def _note(self, lines: list[str]) -> None:
        self.log.extend(lines)
        if lines and self._tell_log is not None:
            self._tell_log(lines)
