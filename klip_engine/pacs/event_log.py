"""What the service says while it runs: one JSON object per line, without patient data.

Studies, series and instances appear by pseudonym (`Pseudonyms.short`), peers by the name the configuration gives
them. Free text comes only from sentences written in this program; a UID in one is hidden all the same.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol, TextIO

from klip_engine.pacs.event_tally import EventTally

Fact = str | int | float | bool | None

_UID = re.compile(r"(?<![\d.])(?:[0-2](?:\.\d+){5,}|2\.25\.\d{6,})")
"""PS3.5 9.1 and B.2. IP addresses and version numbers have fewer parts."""


class Level(StrEnum):
    """How much a line matters; `warning` and `error` want a person's eye."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Events(Protocol):
    """Where the service's parts say what happened."""

    def __call__(self, event: str, level: Level = Level.INFO, **facts: Fact) -> None:
        """Say it. event: a fixed word such as `instance-stored`; facts: no identifiers but pseudonyms."""


class LineStream(Protocol):
    """Takes lines; stdout is one, `LogFile` another."""

    def write(self, text: str, /) -> object:
        """Take some text."""

    def flush(self) -> None:
        """Let it be seen by others."""


class EventLog:
    """Writes events as JSON lines and tallies them for the metrics; several threads may call it."""

    def __init__(
        self, stream: TextIO | LineStream | None = None, clock: Callable[[], datetime] | None = None
    ) -> None:
        self._stream = stream or sys.stdout
        self._clock = clock or (lambda: datetime.now(UTC))
        self._lock = threading.Lock()
        self.tally = EventTally()

    @property
    def counts(self) -> Counter[str]:
        """How often each event has happened since the start."""
        return self.tally.counts

    def __call__(self, event: str, level: Level = Level.INFO, **facts: Fact) -> None:
        """Write one line."""
        moment = self._clock()
        said = {key: hide_uids(value) if isinstance(value, str) else value for key, value in facts.items()}
        head = {"time": moment.isoformat(timespec="milliseconds"), "level": level.value, "event": event}
        line = json.dumps(head | said)
        with self._lock:
            self.tally.add(event, moment.timestamp(), said, is_trouble=level is not Level.INFO)
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # a closed terminal or full log disk must not stop the service
                return


def hide_uids(text: str) -> str:
    """The text with every DICOM UID in it replaced: what engine and peers say is shown, whom it is about is not."""
    return _UID.sub("[UID]", text)
