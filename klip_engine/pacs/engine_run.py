"""One run of the engine as a process of its own: `klip-engine detect`, watched, limited in time, one at a time.

The process holds a lock on its job's folder. If the service is killed, the process goes on; the next service
finds the lock taken and waits for the result instead of starting a second run.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO

from klip_engine.errors import Cancelled, InputError, UsageError
from klip_engine.pacs.config import Engine

EngineCommand = Callable[[Path, Path], Sequence[str]]
"""The command line for a folder of DICOM files and a result folder that is complete or absent when it ends."""

_PATIENCE_S = 20.0


class Ending(Enum):
    """How a run ended."""

    DONE = "done"
    STOPPED = "stopped"
    """On request; to be run again."""
    FAILED = "failed"
    """Perhaps not for good: killed, out of memory, too slow."""
    REFUSED = "refused"
    """For good: the input cannot be processed."""


@dataclass(frozen=True)
class RunResult:
    """The ending and, where it is not DONE, one sentence."""

    ending: Ending
    reason: str = ""


def detect_command(engine: Engine, objects: Sequence[str]) -> EngineCommand:
    """`klip-engine detect` with the settings of the configuration."""

    def command(source: Path, out: Path) -> list[str]:
        options = ["--prior", engine.prior, "--device", engine.device]
        options += ["--settings", str(engine.settings)] if engine.settings else ["--preset", engine.preset]
        if engine.false_alarms is not None:
            options += ["--false-alarms", str(engine.false_alarms)]
        options += ["--dicom", ",".join(objects), "--progress", "json"]
        return [sys.executable, "-m", "klip_engine", "detect", str(source), "-o", str(out), *options]

    return command


def run_engine(
    command: Sequence[str],
    folder: Path,
    *,
    time_limit_s: float,
    is_done: Callable[[], bool],
    stop: threading.Event,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> RunResult:
    """Run a command for a job's folder and wait; is_done: whether the results are there, complete.

    A run that an earlier service left behind is waited for first.
    """
    with (folder / "lock").open("a+") as lock:
        until = time.monotonic() + time_limit_s
        if not _take(lock, until, stop):
            return RunResult(Ending.STOPPED)
        if is_done():
            return RunResult(Ending.DONE)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # tracebacks and warnings of libraries may quote headers
                start_new_session=True,
                pass_fds=[lock.fileno()],
                text=True,
                errors="replace",
            )
        except OSError as error:
            return RunResult(Ending.FAILED, f"the engine cannot be started: {error.strerror}")
        lock.seek(0)
        lock.truncate()
        lock.write(str(process.pid))
        lock.flush()
        return _watch(process, until, time_limit_s, is_done, stop, progress)


def _take(lock: IO[str], until: float, stop: threading.Event) -> bool:
    """The lock; False on stop. Beyond the time limit the run that holds it is killed."""
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                lock.seek(0)
                holder = lock.read().strip()
                if holder.isdigit():
                    _signal(int(holder), signal.SIGKILL)
            if stop.wait(0.5):
                return False


def _watch(
    process: subprocess.Popen[str],
    until: float,
    time_limit_s: float,
    is_done: Callable[[], bool],
    stop: threading.Event,
    progress: Callable[[str, int, int], None],
) -> RunResult:
    said: dict[str, str] = {}
    reader = threading.Thread(target=_read, args=(process, said, progress), daemon=True)
    reader.start()
    while process.poll() is None:
        if stop.wait(0.1):
            _end(process)
            return RunResult(Ending.DONE) if is_done() else RunResult(Ending.STOPPED)
        if time.monotonic() > until:
            _end(process)
            return RunResult(Ending.FAILED, f"longer than the time limit of {time_limit_s / 60:.0f} minutes")
    reader.join(5)
    code = process.returncode
    if code == 0 and is_done():
        return RunResult(Ending.DONE)
    sentence = said.get("message") or f"the engine ended with {code} and said nothing"
    if code in (InputError.exit_code, UsageError.exit_code):
        return RunResult(Ending.REFUSED, sentence)
    if code == Cancelled.exit_code:
        return RunResult(Ending.STOPPED, sentence)
    return RunResult(Ending.FAILED, sentence if code >= 0 else f"the engine was killed (signal {-code})")


def _read(process: subprocess.Popen[str], said: dict[str, str], progress: Callable[[str, int, int], None]) -> None:
    """Follow the lines of `--progress json` (docs/cli.md)."""
    assert process.stdout is not None
    for line in process.stdout:
        try:
            event = json.loads(line)
            if event.get("event") == "error":
                said["message"] = str(event.get("message", ""))
            elif event.get("event") == "progress":
                progress(str(event["stage"]), int(event["done"]), int(event["total"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue


def _end(process: subprocess.Popen[str]) -> None:
    """Ask the run and what it started to stop, then make it."""
    _signal(process.pid, signal.SIGTERM)
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        _signal(process.pid, signal.SIGKILL)
        process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return
