"""What the service says while it runs: one JSON object per line, without patient data.

Studies, series and instances appear by pseudonym (`Pseudonyms.short`), peers by the name the configuration gives
them. Free text comes only from sentences written in this package.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol, TextIO

Fact = str | int | float | bool | None


class Level(StrEnum):
    """How much a line matters; `warning` and `error` want a person's eye."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Events(Protocol):
    """Where the service's parts say what happened."""

    def __call__(self, event: str, level: Level = Level.INFO, **facts: Fact) -> None:
        """Say it. event: a fixed word such as `instance-stored`; facts: no identifiers but pseudonyms."""


class EventLog:
    """Writes events as JSON lines; several threads may call it. Counts them too, for the metrics."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], datetime] | None = None) -> None:
        self._stream = stream or sys.stdout
        self._clock = clock or (lambda: datetime.now(UTC))
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def __call__(self, event: str, level: Level = Level.INFO, **facts: Fact) -> None:
        """Write one line."""
        moment = self._clock().isoformat(timespec="milliseconds")
        line = json.dumps({"time": moment, "level": level.value, "event": event} | facts)
        with self._lock:
            self.counts[event] += 1
            try:
                print(line, file=self._stream, flush=True)
            except (OSError, ValueError):  # a closed terminal or full log disk must not stop the service
                return
