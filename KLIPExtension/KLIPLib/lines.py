"""What the engine prints, read while it prints: complete lines of a growing file, and the events in them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHUNK = 4 * 1024 * 1024
"""Most bytes taken at a time, so that a flood costs one look a few milliseconds and not the whole window."""
_LONGEST_LINE = 1024 * 1024


class GrowingFile:
    """Lines of a file that another program is still writing; a line counts when its end is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0
        self._rest = b""

    def new_lines(self) -> list[str]:
        """The lines that became complete since the last call; bytes that are no UTF-8 become a replacement mark."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._place)
                chunk = stream.read(_CHUNK)
        except OSError:
            return []  # the folder is gone: whoever waits for the end of the program finds out why
        self._place += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            lines, self._rest = [*lines, self._rest], b""
        return [_text(line) for line in lines]

    def last_lines(self) -> list[str]:
        """All that is left, once the program has ended: also a last line without an end."""
        lines = []
        while True:
            place = self._place
            lines += self.new_lines()
            if self._place == place:
                break
        rest, self._rest = self._rest, b""
        return [*lines, _text(rest)] if rest else lines


@dataclass(frozen=True)
class Progress:
    """How far a run is: `done` of `total` steps of a stage; seconds since the start, and of the stage to come."""

    stage: str
    done: int
    total: int
    elapsed_s: float
    remaining_s: float | None = None

    @property
    def fraction(self) -> float:
        """From 0 to 1."""
        return min(max(self.done / self.total, 0.0), 1.0) if self.total > 0 else 0.0


def event_in(line: str) -> dict[str, Any] | None:
    """The event a line of `--progress json` holds; None for any other line."""
    if not line.startswith("{"):
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def progress_in(event: dict[str, Any]) -> Progress | None:
    """The progress an event tells of; None where it lacks a number."""
    numbers = [event.get(name) for name in ("done", "total", "elapsed_s")]
    if event["event"] != "progress" or not all(_number(value) for value in numbers):
        return None
    remaining = event.get("remaining_s")
    done, total, elapsed = numbers
    return Progress(
        str(event.get("stage", "")),
        int(done),
        int(total),
        float(elapsed),
        float(remaining) if _number(remaining) else None,
    )


def event_words(event: dict[str, Any]) -> str:
    """An event as a line of the log."""
    facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in event.items() if name != "event")
    return f"{event['event']}: {facts}"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="replace").rstrip("\r")
