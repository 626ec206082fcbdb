"""The journal seen as a whole, for metrics and the status page: read only, on a connection of its own.

Receiving and delivering never wait for what is asked here, and what is asked never changes anything.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klip_engine.pacs.journal.deliveries import Delivery, DeliveryState
from klip_engine.pacs.journal.jobs import Job, JobState


@dataclass(frozen=True)
class StudyRow:
    """A study with what became of it. Times in seconds since 1970.

    series: (chosen, reason) of each decision, the chosen first; jobs: states, the newest first;
    deliveries: how many in each state.
    """

    uid: str
    state: str
    first_at: float
    last_at: float
    images: int
    series: tuple[tuple[bool, str], ...]
    jobs: tuple[str, ...]
    deliveries: dict[str, int]


@dataclass(frozen=True)
class DestinationRow:
    """Deliveries to one destination. failing_since: of the longest failing that still waits; reason: the newest."""

    name: str
    counts: dict[str, int]
    oldest_waiting: float | None
    failing_since: float | None
    reason: str


@dataclass(frozen=True)
class Spread:
    """Durations in seconds: how many there are, their sum, and how many lie at or below each bound."""

    count: int
    total: float
    at_most: tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class Overview:
    """One moment of the journal; everything in it belongs together."""

    instances_ever: int
    studies: dict[str, int]
    jobs: dict[str, int]
    destinations: tuple[DestinationRow, ...]
    oldest_queued: float | None
    running: tuple[Job, ...]
    queued: tuple[Job, ...]
    dead_jobs: tuple[Job, ...]
    dead_deliveries: tuple[Delivery, ...]
    last_studies: tuple[StudyRow, ...]
    last_received: float | None
    job_seconds: Spread
    delivery_seconds: Spread
    removed: int


class OverviewReader:
    """Reads overviews from the journal's file; one thread at a time, others wait."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()

    def read(
        self,
        *,
        studies: int = 25,
        jobs: int = 20,
        job_bounds: Sequence[float] = (),
        delivery_bounds: Sequence[float] = (),
    ) -> Overview:
        """Look once. Raises sqlite3.Error where the journal cannot be read."""
        with self._lock, self._moment() as connection:
            return _Look(connection).overview(studies, jobs, job_bounds, delivery_bounds)

    @contextmanager
    def _moment(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state of the file, whatever is written meanwhile."""
        address = f"{self._file.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=5, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")
            yield connection


class _Look:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def overview(
        self, studies: int, jobs: int, job_bounds: Sequence[float], delivery_bounds: Sequence[float]
    ) -> Overview:
        return Overview(
            instances_ever=self._number("SELECT MAX(sequence) FROM instances") or 0,
            studies=self._by_state("studies"),
            jobs=self._by_state("jobs"),
            destinations=self._destinations(),
            oldest_queued=self._number("SELECT MIN(created_at) FROM jobs WHERE state = 'queued'"),
            running=self._jobs("state = 'running' ORDER BY sequence LIMIT ?", jobs),
            queued=self._jobs("state = 'queued' ORDER BY sequence LIMIT ?", jobs),
            dead_jobs=self._jobs("state = 'dead' ORDER BY ended_at DESC LIMIT ?", jobs),
            dead_deliveries=self._dead_deliveries(jobs),
            last_studies=self._studies(studies),
            last_received=self._number("SELECT MAX(last_at) FROM studies"),
            job_seconds=self._spread("ended_at - started_at", "jobs WHERE state = 'done'", job_bounds),
            delivery_seconds=self._spread(
                "ended_at - created_at", "deliveries WHERE state = 'done'", delivery_bounds
            ),
            removed=self._number("SELECT COUNT(*) FROM history") or 0,
        )

    def _studies(self, count: int) -> tuple[StudyRow, ...]:
        rows = self._rows("SELECT * FROM studies ORDER BY last_at DESC LIMIT ?", count)
        return tuple(self._study(row) for row in rows)

    def _study(self, row: sqlite3.Row) -> StudyRow:
        uid = row["study"]
        series = self._rows("SELECT chosen, reason FROM series WHERE study = ? ORDER BY chosen DESC, series", uid)
        jobs = self._rows("SELECT state FROM jobs WHERE study = ? ORDER BY sequence DESC", uid)
        deliveries = self._rows(
            "SELECT state, COUNT(*) AS number FROM deliveries WHERE job IN"
            " (SELECT key FROM jobs WHERE study = ?) GROUP BY state",
            uid,
        )
        images = self._number("SELECT COUNT(*) FROM instances WHERE study = ?", uid) or 0
        return StudyRow(
            uid,
            row["state"],
            row["first_at"],
            row["last_at"],
            images,
            tuple((bool(one["chosen"]), one["reason"]) for one in series),
            tuple(one["state"] for one in jobs),
            {one["state"]: one["number"] for one in deliveries},
        )

    def _destinations(self) -> tuple[DestinationRow, ...]:
        counts: dict[str, dict[str, int]] = {}
        query = "SELECT destination, state, COUNT(*) AS number FROM deliveries GROUP BY destination, state"
        for row in self._rows(query):
            counts.setdefault(row["destination"], {})[row["state"]] = row["number"]
        return tuple(self._destination(name, numbers) for name, numbers in sorted(counts.items()))

    def _destination(self, name: str, counts: dict[str, int]) -> DestinationRow:
        waits = "FROM deliveries WHERE destination = ? AND state IN ('waiting', 'committing')"
        reasons = self._rows(f"SELECT reason {waits} AND reason != '' ORDER BY failing_since DESC LIMIT 1", name)
        return DestinationRow(
            name,
            counts,
            self._number(f"SELECT MIN(created_at) {waits}", name),
            self._number(f"SELECT MIN(failing_since) {waits}", name),
            reasons[0]["reason"] if reasons else "",
        )

    def _dead_deliveries(self, limit: int) -> tuple[Delivery, ...]:
        rows = self._rows("SELECT * FROM deliveries WHERE state = 'dead' ORDER BY ended_at DESC LIMIT ?", limit)
        return tuple(Delivery(**dict(row) | {"state": DeliveryState(row["state"])}) for row in rows)

    def _jobs(self, condition: str, limit: int) -> tuple[Job, ...]:
        found = []
        for row in self._rows(f"SELECT * FROM jobs WHERE {condition}", limit):
            values = dict(row) | {"state": JobState(row["state"])}
            del values["sequence"], values["removed_at"]
            found.append(Job(**values))
        return tuple(found)

    def _spread(self, duration: str, source: str, bounds: Sequence[float]) -> Spread:
        below = "".join(f", SUM(CASE WHEN {duration} <= {float(bound)} THEN 1 ELSE 0 END)" for bound in bounds)
        row = self._rows(f"SELECT COUNT({duration}), SUM({duration}){below} FROM {source}")[0]
        return Spread(row[0], row[1] or 0.0, tuple(zip(bounds, (number or 0 for number in row[2:]), strict=True)))

    def _by_state(self, table: str) -> dict[str, int]:
        rows = self._rows(f"SELECT state, COUNT(*) AS number FROM {table} GROUP BY state")
        return {row["state"]: row["number"] for row in rows}

    def _number(self, query: str, *values: object) -> Any:
        return self._rows(query, *values)[0][0]

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        return self._connection.execute(query, values).fetchall()
