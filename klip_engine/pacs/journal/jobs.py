"""Jobs: one run of the engine on one version of one series.

queued -> running -> done
                  -> queued (stopped, or failed and to be tried again) -> ... -> dead
queued -> superseded (the series has grown)        dead -> queued (on request)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from klip_engine.pacs.journal.database import Database


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    SUPERSEDED = "superseded"
    DEAD = "dead"


@dataclass(frozen=True)
class Job:
    """One job. key: names its folder, and stands for study, series, contents, prior and settings."""

    key: str
    study: str
    series: str
    through: int
    state: JobState
    attempts: int
    not_before: float
    reason: str
    created_at: float
    started_at: float | None
    ended_at: float | None


@dataclass(frozen=True)
class Parcel:
    """One result object for one destination, to be delivered. fallback: what is sent where it is refused."""

    destination: str
    object: str
    file: str
    fallback: str = ""


class Jobs:
    """Questions about and changes of jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def next(self, now: float) -> Job | None:
        """The oldest job that may start."""
        row = self._database.row(
            "SELECT * FROM jobs WHERE state = 'queued' AND not_before <= ? ORDER BY sequence LIMIT 1", (now,)
        )
        return _job(row) if row else None

    def get(self, key: str) -> Job | None:
        """One job."""
        row = self._database.row("SELECT * FROM jobs WHERE key = ?", (key,))
        return _job(row) if row else None

    def start(self, job: Job, now: float) -> None:
        """The job runs; each start counts as an attempt until it turns out that it was stopped on purpose."""
        self._set(job, "state = 'running', attempts = attempts + 1, started_at = ?", now)

    def stopped(self, job: Job) -> None:
        """The service stops and the job with it: queued again, the attempt does not count."""
        self._set(job, "state = 'queued', attempts = attempts - 1")

    def try_again(self, job: Job, not_before: float, reason: str) -> None:
        """The run failed, perhaps not for good."""
        self._set(job, "state = 'queued', not_before = ?, reason = ?", not_before, reason)

    def bury(self, job: Job, reason: str, now: float) -> None:
        """The job failed for good."""
        self._set(job, "state = 'dead', reason = ?, ended_at = ?", reason, now)

    def finish(self, job: Job, parcels: Sequence[Parcel], now: float) -> bool:
        """The results are complete: the job is done and its deliveries wait, all or nothing.

        False where a job for a larger version of the series exists already: then nothing is delivered.
        """
        with self._database.change() as connection:
            newer = connection.execute(
                "SELECT 1 FROM jobs WHERE study = ? AND series = ?"
                " AND sequence > (SELECT sequence FROM jobs WHERE key = ?)",
                (job.study, job.series, job.key),
            ).fetchone()
            state = "superseded" if newer else "done"
            connection.execute(
                "UPDATE jobs SET state = ?, ended_at = ?, reason = '' WHERE key = ?", (state, now, job.key)
            )
            for parcel in () if newer else parcels:
                connection.execute(
                    "INSERT OR IGNORE INTO deliveries (job, destination, object, file, fallback, state, created_at)"
                    " VALUES (?, ?, ?, ?, ?, 'waiting', ?)",
                    (job.key, parcel.destination, parcel.object, parcel.file, parcel.fallback, now),
                )
        return newer is None

    def recover(self) -> int:
        """At the start of the service: what was running when the last one died waits again. Returns how many."""
        with self._database.change() as connection:
            return connection.execute(
                "UPDATE jobs SET state = 'queued', attempts = attempts - 1 WHERE state = 'running'"
            ).rowcount

    def revive(self) -> int:
        """Dead jobs are tried again, on request. Returns how many."""
        with self._database.change() as connection:
            return connection.execute(
                "UPDATE jobs SET state = 'queued', attempts = 0, not_before = 0, ended_at = NULL"
                " WHERE state = 'dead' AND EXISTS (SELECT 1 FROM instances"
                " WHERE instances.series = jobs.series AND removed_at IS NULL)"
            ).rowcount

    def in_state(self, *states: JobState, limit: int = 100) -> list[Job]:
        """Jobs by state, the newest first."""
        marks = ", ".join("?" * len(states))
        rows = self._database.rows(
            f"SELECT * FROM jobs WHERE state IN ({marks}) ORDER BY sequence DESC LIMIT ?", (*states, limit)
        )
        return [_job(row) for row in rows]

    def of_study(self, study: str) -> list[Job]:
        """All jobs of a study, the oldest first."""
        return [
            _job(r) for r in self._database.rows("SELECT * FROM jobs WHERE study = ? ORDER BY sequence", (study,))
        ]

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        rows = self._database.rows("SELECT state, COUNT(*) AS number FROM jobs GROUP BY state")
        return {row["state"]: row["number"] for row in rows}

    def removable(self, before: float) -> list[Job]:
        """Ended jobs whose results are still there and have all been delivered before a moment."""
        rows = self._database.rows(
            "SELECT * FROM jobs WHERE state IN ('done', 'superseded') AND ended_at <= ? AND removed_at IS NULL"
            " AND NOT EXISTS (SELECT 1 FROM deliveries WHERE job = jobs.key"
            " AND (state != 'done' OR ended_at > ?)) ORDER BY sequence",
            (before, before),
        )
        return [_job(row) for row in rows]

    def removed_ones(self) -> list[Job]:
        """Jobs whose results retention removed."""
        return [_job(row) for row in self._database.rows("SELECT * FROM jobs WHERE removed_at IS NOT NULL")]

    def removed(self, job: Job, now: float) -> None:
        """The results of a job are about to go. Kept in the history."""
        with self._database.change() as connection:
            connection.execute("UPDATE jobs SET removed_at = ? WHERE key = ?", (now, job.key))
            connection.execute(
                "INSERT INTO history VALUES (?, ?, 'results removed', 'retention.results_days')", (now, job.study)
            )

    def _set(self, job: Job, assignments: str, *values: object) -> None:
        with self._database.change() as connection:
            connection.execute(f"UPDATE jobs SET {assignments} WHERE key = ?", (*values, job.key))


def _job(row: sqlite3.Row) -> Job:
    names = ("attempts", "not_before", "reason", "created_at", "started_at", "ended_at")
    return Job(
        row["key"],
        row["study"],
        row["series"],
        row["through"],
        JobState(row["state"]),
        *(row[name] for name in names),
    )
