"""How the command line speaks: a progress bar for people, one JSON object per line for programs, or silence."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from io import StringIO
from types import FrameType
from typing import Any, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining
from rich.table import Table
from rich.text import Text

from klip_engine.errors import Cancelled, KlipError

STOP_AT_EOF = "KLIP_STOP_AT_EOF"
"""Environment variable: programs that start the engine keep its standard input open as long as they live."""
_LINES_APART_S = 30.0
_SAID = {"calibrating": "learning what is usual under these settings (only the first time)"}
"""Stages in words, for people."""
_LAST_MOMENT_S = 20.0
"""What a stop may take before the engine ends without more ado, when nobody is left who could end it."""


class ProgressStyle(StrEnum):
    """Values of --progress."""

    RICH = "rich"
    JSON = "json"
    NONE = "none"


class Reporter(Protocol):
    """Where a command sends what it has to say."""

    def start(self, **facts: Any) -> None:
        """The work begins."""

    def warning(self, sentence: str) -> None:
        """The results will need care: said before the work that makes them."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Part of a stage is done."""

    def done(self, text: str, **facts: Any) -> None:
        """The work is complete and its results are written."""

    def error(self, error: KlipError) -> None:
        """The work ended without a result."""

    def close(self) -> None:
        """Nothing more will be said."""


class JsonReporter:
    """One JSON object per line on stdout: {"event": "start" | "warning" | "progress" | "done" | "error", ...}."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._stage_began: tuple[str, float] = ("", self._began)
        self._told = 0.0

    def start(self, **facts: Any) -> None:
        """Print a start event."""
        self._print("start", facts)

    def warning(self, sentence: str) -> None:
        """Print a warning event."""
        self._print("warning", {"message": sentence})

    def progress(self, stage: str, done: int, total: int) -> None:
        """Print a progress event, at most four a second, with elapsed and remaining seconds of the stage."""
        now = time.perf_counter()
        if stage != self._stage_began[0]:
            self._stage_began = (stage, now)
        if done < total and now - self._told < 0.25:
            return
        self._told = now
        spent = now - self._stage_began[1]
        facts = {"stage": stage, "done": done, "total": total, "elapsed_s": round(now - self._began, 2)}
        if done and spent > 0.5:
            facts["remaining_s"] = round(spent / done * (total - done), 1)
        self._print("progress", facts)

    def done(self, text: str, **facts: Any) -> None:
        """Print a done event."""
        self._print("done", facts | {"elapsed_s": round(time.perf_counter() - self._began, 2)})

    def error(self, error: KlipError) -> None:
        """Print an error event; the sentence also goes to stderr."""
        self._print("error", {"message": str(error), "exit_code": error.exit_code})
        print(f"klip-engine: {error}", file=sys.stderr)

    def close(self) -> None:
        """Nothing is left open."""

    def _print(self, event: str, facts: dict[str, Any]) -> None:
        print(json.dumps({"event": event} | facts), flush=True)


class SilentReporter:
    """Only warnings and errors are said, on stderr."""

    def start(self, **facts: Any) -> None:
        """Say nothing."""

    def warning(self, sentence: str) -> None:
        """Print the sentence on stderr."""
        print(f"klip-engine: warning: {sentence}", file=sys.stderr)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Say nothing."""

    def done(self, text: str, **facts: Any) -> None:
        """Say nothing."""

    def error(self, error: KlipError) -> None:
        """Print the sentence on stderr."""
        print(f"klip-engine: {error}", file=sys.stderr)

    def close(self) -> None:
        """Nothing is left open."""


class RichReporter:
    """A progress bar on stderr, or a line now and then where that is no terminal; the closing words on stdout."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: tuple[str, Any] = ("", None)
        self._said_at = -math.inf

    def start(self, **facts: Any) -> None:
        """Say what is about to be done."""
        text = " · ".join(f"{name} {value}" for name, value in facts.items())
        self._console.print(text, highlight=False, markup=False)

    def warning(self, sentence: str) -> None:
        """Print the sentence on stderr, above the bar."""
        self._console.print(Text.assemble(("Warning: ", "bold yellow"), sentence), soft_wrap=True)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Move the bar of the stage."""
        stage = _SAID.get(stage, stage)
        if not self._console.is_terminal:
            self._say(stage, done, total)
            return
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                Remaining(),
                console=self._console,
            )
            self._bar.start()
        if stage != self._task[0]:
            self._task = (stage, self._bar.add_task(stage, total=total))
        self._bar.update(self._task[1], completed=done, total=total)

    def _say(self, stage: str, done: int, total: int) -> None:
        """A line for a log: when a stage begins and ends, and at most twice a minute between."""
        now = time.monotonic()
        if stage != self._task[0] or done == total or now - self._said_at >= _LINES_APART_S:
            self._task, self._said_at = (stage, None), now
            self._console.print(f"{stage}: {done} of {total}", highlight=False, markup=False, soft_wrap=True)

    def done(self, text: str, **facts: Any) -> None:
        """Close the bar and print the closing words."""
        self.close()
        Console().print(text, highlight=False, markup=False, soft_wrap=True)

    def error(self, error: KlipError) -> None:
        """Close the bar and print the sentence on stderr."""
        self.close()
        self._console.print(Text.assemble(("klip-engine: ", "bold red"), str(error)), soft_wrap=True)

    def close(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def make_reporter(style: ProgressStyle) -> Reporter:
    """The reporter for a value of --progress."""
    if style is ProgressStyle.RICH:
        return RichReporter()
    return JsonReporter() if style is ProgressStyle.JSON else SilentReporter()


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as plain text: the first column to the left, numbers to the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    stream = StringIO()
    Console(file=stream, width=200).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().strip("\n").splitlines())


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGINT (Ctrl+C), SIGTERM and, on Windows, SIGBREAK set; a second signal acts at once.

    Outside the main thread, where signals cannot be caught, the event is never set. Where the environment says
    KLIP_STOP_AT_EOF=1, the end of standard input sets it too: the caller closed it, or is gone; another number is
    that of an inherited pipe, for callers behind a launcher that keeps standard input to itself.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    bound_to = os.environ.get(STOP_AT_EOF, "")
    if bound_to.isdecimal() and int(bound_to) > 0:
        descriptor = 0 if bound_to == "1" else int(bound_to)
        threading.Thread(target=_stop_with_input, args=(stop, descriptor), daemon=True).start()
    before: dict[signal.Signals, Any] = {}
    asked = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        stop.set()

    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is not None:
            before[number] = signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _stop_with_input(stop: threading.Event, descriptor: int) -> None:
    """Wait for the end of an open file, ask for a stop, and end the process if it does not come."""
    try:
        while os.read(descriptor, 4096):  # not sys.stdin: its lock must be free when the interpreter shuts down
            pass
    except OSError:
        pass  # there is none: nobody holds it open
    stop.set()
    time.sleep(_LAST_MOMENT_S)
    os._exit(Cancelled.exit_code)
