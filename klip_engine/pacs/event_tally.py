"""What the events of this run add up to: counts, the last minutes, and the last that want a person's eye."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

MINUTES = 60
_TROUBLES = 50


@dataclass(frozen=True)
class Trouble:
    """A warning or an error; the same one again only counts up. at: of the last, in seconds since 1970."""

    at: float
    event: str
    facts: tuple[tuple[str, str], ...]
    times: int = 1


class EventTally:
    """Memory of fixed size; several threads may add and ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self._minutes: dict[str, deque[tuple[int, int]]] = {}
        self._troubles: deque[Trouble] = deque(maxlen=_TROUBLES)

    def add(self, event: str, at: float, facts: Mapping[str, object], *, is_trouble: bool) -> None:
        """Count an event."""
        minute = int(at // 60)
        with self._lock:
            self.counts[event] += 1
            minutes = self._minutes.setdefault(event, deque(maxlen=MINUTES))
            before = minutes.pop()[1] if minutes and minutes[-1][0] == minute else 0
            minutes.append((minute, before + 1))
            if is_trouble:
                self._add_trouble(event, at, facts)

    def per_minute(self, event: str, now: float) -> list[int]:
        """How often in each of the last 60 minutes, the present one last."""
        with self._lock:
            counted = dict(self._minutes.get(event, ()))
        return [counted.get(minute, 0) for minute in range(int(now // 60) - MINUTES + 1, int(now // 60) + 1)]

    def troubles(self) -> list[Trouble]:
        """The last warnings and errors, the newest first."""
        with self._lock:
            return sorted(self._troubles, key=lambda trouble: trouble.at, reverse=True)

    def last(self, event: str) -> Trouble | None:
        """The last warning or error of this name, None where there is none in memory."""
        return next((trouble for trouble in self.troubles() if trouble.event == event), None)

    def _add_trouble(self, event: str, at: float, facts: Mapping[str, object]) -> None:
        shown = tuple((key, str(value)) for key, value in facts.items() if value is not None)
        same = ("reason", "destination", "part", "peer", "address")
        told = [pair for pair in shown if pair[0] in same]
        for place, earlier in enumerate(self._troubles):
            if earlier.event == event and [pair for pair in earlier.facts if pair[0] in same] == told:
                del self._troubles[place]
                self._troubles.append(Trouble(at, event, shown, earlier.times + 1))
                return
        self._troubles.append(Trouble(at, event, shown))
