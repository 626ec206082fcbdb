"""The service at one moment, as health, metrics and the page show it: they never disagree."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from klip_engine.pacs.config import ServiceConfig
from klip_engine.pacs.event_tally import EventTally
from klip_engine.pacs.journal.journal import JOURNAL_FILE
from klip_engine.pacs.journal.overview import Overview, OverviewReader

JOB_BOUNDS_S = (30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 2400.0, 3600.0, 7200.0, 14400.0)
DELIVERY_BOUNDS_S = (1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0, 604800.0)
_FRESH_FOR_S = 1.0


@dataclass(frozen=True)
class Progress:
    """The run in hand: the job's key, what is being done, how far."""

    job: str
    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Watched:
    """What is looked at. threads: whether each part of the service is running, by its name."""

    config: ServiceConfig
    tally: EventTally
    threads: Callable[[], Mapping[str, bool]]
    progress: Callable[[], tuple[str, str, int, int] | None]
    pseudonym: Callable[[str], str]
    started_at: float
    clock: Callable[[], float] = time.time


@dataclass(frozen=True)
class Snapshot:
    """One look. journal: None where it could not be read; disk sizes in bytes."""

    at: float
    started_at: float
    journal: Overview | None
    threads: Mapping[str, bool]
    progress: Progress | None
    disk_free: int
    disk_total: int
    disk_reserve: int


class Camera:
    """Takes snapshots, at most one a second however many ask."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._reader = OverviewReader(watched.config.state / JOURNAL_FILE)
        self._lock = threading.Lock()
        self._last: Snapshot | None = None

    def take(self, *, fresh: bool = False) -> Snapshot:
        """The service now; fresh: not even a second old."""
        now = self._watched.clock()
        with self._lock:
            if fresh or self._last is None or not 0 <= now - self._last.at < _FRESH_FOR_S:
                self._last = self._look(now)
            return self._last

    def _look(self, now: float) -> Snapshot:
        watched = self._watched
        try:
            journal = self._reader.read(job_bounds=JOB_BOUNDS_S, delivery_bounds=DELIVERY_BOUNDS_S)
        except sqlite3.Error:
            journal = None
        disk = shutil.disk_usage(watched.config.state)
        progress = watched.progress()
        return Snapshot(
            at=now,
            started_at=watched.started_at,
            journal=journal,
            threads=dict(watched.threads()),
            progress=Progress(*progress) if progress else None,
            disk_free=disk.free,
            disk_total=disk.total,
            disk_reserve=watched.config.free_disk_mb << 20,
        )
