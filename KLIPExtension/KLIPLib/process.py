"""A program with all that it starts: begun in a group of its own, asked to stop, and ended as a whole."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .command import STOP_AT_EOF

WINDOWS = os.name == "nt"


class ProcessTree:
    """A running program; what it prints goes to two files, its input stays open as long as we live.

    Its input: standard input, and where programs inherit open files a pipe of its own (its number in the variable
    KLIP_STOP_AT_EOF), since a launcher between us, as PythonSlicer is, keeps standard input to itself.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], out: Path, err: Path
    ) -> None:
        """Start it in `folder`. Raises OSError when it cannot be started."""
        theirs, self._life = (None, None) if WINDOWS else os.pipe()
        try:
            with out.open("wb") as stdout, err.open("wb") as stderr:
                self._process = subprocess.Popen(
                    list(command),
                    cwd=folder,
                    env=dict(environment) if theirs is None else dict(environment) | {STOP_AT_EOF: str(theirs)},
                    stdin=subprocess.PIPE,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=() if theirs is None else (theirs,),
                    **_own_group(),
                )
        except BaseException:
            self._end_life()
            raise
        finally:
            if theirs is not None:
                os.close(theirs)

    @property
    def pid(self) -> int:
        """Of the program itself."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative where a signal ended it."""
        return self._process.poll()

    def has_others(self) -> bool:
        """Whether something it started runs on after its own end; not known on Windows, where nothing tells."""
        if WINDOWS:
            return False
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def ask_to_stop(self) -> None:
        """Let it stop by itself: the engine does at the end of its input, other programs at SIGTERM."""
        self._close_input()
        if not WINDOWS and self._process.poll() is None:
            self._signal_group(signal.SIGTERM)

    def kill(self) -> None:
        """End it and everything it started, now, and wait until it is gone."""
        if WINDOWS:
            if self._process.poll() is None:
                subprocess.run(
                    ["taskkill", "/T", "/F", "/PID", str(self.pid)],
                    capture_output=True,
                    check=False,
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
        else:
            self._signal_group(signal.SIGKILL)
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return  # in the kernel's hands: it does not come back to life
        finally:
            self._close_input()

    def _signal_group(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):  # gone, or on macOS only its zombie is left
            return

    def _end_life(self) -> None:
        if self._life is not None:
            os.close(self._life)
            self._life = None

    def _close_input(self) -> None:
        self._end_life()
        try:
            if self._process.stdin:
                self._process.stdin.close()
        except OSError:
            return  # it is gone


def _own_group() -> dict[str, object]:
    if not WINDOWS:
        return {"start_new_session": True}
    flags = ("CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW")
    return {"creationflags": sum(getattr(subprocess, flag, 0) for flag in flags)}
