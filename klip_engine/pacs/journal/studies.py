"""Studies and their instances: what has arrived, and what was decided once a study was quiet.

receiving --quiet--> settled --a further instance--> receiving ...
settled --retention--> removed (its images; the journal's lines stay)
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from klip_engine.pacs.journal.database import Database


class StudyState(StrEnum):
    """Where a study is on its way in."""

    RECEIVING = "receiving"
    SETTLED = "settled"
    REMOVED = "removed"


@dataclass(frozen=True)
class Study:
    """One study. version: how many instances have arrived so far; times in seconds since 1970."""

    uid: str
    state: StudyState
    version: int
    first_at: float
    last_at: float


@dataclass(frozen=True)
class Instance:
    """One instance in the spool. sha256: of the data set without file meta information."""

    uid: str
    series: str
    study: str
    sha256: str
    bytes: int
    door: str
    sequence: int = 0


@dataclass(frozen=True)
class SeriesDecision:
    """Whether a series is processed, and why; job_key and through only where it is."""

    series: str
    chosen: bool
    reason: str
    job_key: str = ""
    through: int = 0


class Studies:
    """Questions about and changes of what arrives."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, instance: Instance, now: float) -> None:
        """An instance is in the spool: its study is receiving, again if need be. Idempotent by its UID."""
        with self._database.change() as connection:
            connection.execute(
                "INSERT INTO instances (instance, series, study, sha256, bytes, door, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (instance) DO UPDATE SET"
                " sha256 = excluded.sha256, bytes = excluded.bytes, door = excluded.door, at = excluded.at,"
                " series = excluded.series, study = excluded.study, removed_at = NULL"
                " WHERE removed_at IS NOT NULL",
                (
                    instance.uid,
                    instance.series,
                    instance.study,
                    instance.sha256,
                    instance.bytes,
                    instance.door,
                    now,
                ),
            )
            connection.execute(
                "INSERT INTO studies (study, state, version, first_at, last_at) VALUES (?, 'receiving', 1, ?, ?)"
                " ON CONFLICT (study) DO UPDATE SET state = 'receiving', version = version + 1, last_at = ?",
                (instance.study, now, now, now),
            )

    def touch(self, study: str, now: float) -> None:
        """An instance came again: a study that is still receiving waits for quiet anew; others stay settled."""
        with self._database.change() as connection:
            connection.execute(
                "UPDATE studies SET last_at = ? WHERE study = ? AND state = 'receiving'", (now, study)
            )

    def instance(self, uid: str) -> Instance | None:
        """An instance that is in the spool now."""
        row = self._database.row("SELECT * FROM instances WHERE instance = ? AND removed_at IS NULL", (uid,))
        return _instance(row) if row else None

    def was_removed(self, uid: str) -> bool:
        """Whether an instance was in the spool once and retention removed it."""
        query = "SELECT 1 FROM instances WHERE instance = ? AND removed_at IS NOT NULL"
        return self._database.row(query, (uid,)) is not None

    def of_series(self, study: str, series: str, through: int | None = None) -> list[Instance]:
        """The instances of a series in the spool, in the order of their UIDs; through: none later than this."""
        rows = self._database.rows(
            "SELECT * FROM instances WHERE study = ? AND series = ? AND removed_at IS NULL AND sequence <= ?"
            " ORDER BY instance",
            (study, series, through if through is not None else 2**62),
        )
        return [_instance(row) for row in rows]

    def series_of(self, study: str) -> list[str]:
        """The series of a study in the spool."""
        query = "SELECT DISTINCT series FROM instances WHERE study = ? AND removed_at IS NULL ORDER BY series"
        return [row["series"] for row in self._database.rows(query, (study,))]

    def study(self, uid: str) -> Study | None:
        """One study."""
        row = self._database.row("SELECT * FROM studies WHERE study = ?", (uid,))
        return _study(row) if row else None

    def quiet_since(self, moment: float) -> list[Study]:
        """Studies that are receiving and got nothing since a moment, the longest quiet first."""
        query = "SELECT * FROM studies WHERE state = 'receiving' AND last_at <= ? ORDER BY last_at"
        return [_study(row) for row in self._database.rows(query, (moment,))]

    def last(self, count: int = 50) -> list[Study]:
        """The studies that changed last."""
        rows = self._database.rows("SELECT * FROM studies ORDER BY last_at DESC LIMIT ?", (count,))
        return [_study(row) for row in rows]

    def decisions(self, study: str) -> list[SeriesDecision]:
        """What was decided on the series of a study."""
        rows = self._database.rows("SELECT * FROM series WHERE study = ? ORDER BY series", (study,))
        return [SeriesDecision(row["series"], bool(row["chosen"]), row["reason"]) for row in rows]

    def settle(self, study: Study, decisions: Sequence[SeriesDecision], now: float) -> bool:
        """The study is complete: keep the decisions and queue the jobs, all or nothing.

        False, and nothing changed, where a further instance has arrived meanwhile. A queued job for an earlier,
        smaller version of a series is superseded.
        """
        with self._database.change() as connection:
            changed = connection.execute(
                "UPDATE studies SET state = 'settled' WHERE study = ? AND version = ? AND state = 'receiving'",
                (study.uid, study.version),
            )
            if changed.rowcount == 0:
                return False
            for one in decisions:
                connection.execute(
                    "INSERT OR REPLACE INTO series (series, study, chosen, reason) VALUES (?, ?, ?, ?)",
                    (one.series, study.uid, one.chosen, one.reason),
                )
                if one.chosen:
                    connection.execute(
                        "UPDATE jobs SET state = 'superseded', ended_at = ?, reason = 'the series has grown'"
                        " WHERE study = ? AND series = ? AND key != ? AND state = 'queued'",
                        (now, study.uid, one.series, one.job_key),
                    )
                    connection.execute(
                        "INSERT OR IGNORE INTO jobs (key, study, series, through, state, created_at)"
                        " VALUES (?, ?, ?, ?, 'queued', ?)",
                        (one.job_key, study.uid, one.series, one.through, now),
                    )
            return True

    def counts(self) -> dict[str, int]:
        """Studies by state."""
        rows = self._database.rows("SELECT state, COUNT(*) AS number FROM studies GROUP BY state")
        return {row["state"]: row["number"] for row in rows}

    def removable(self, before: float) -> list[Study]:
        """Settled studies without change since a moment whose jobs and deliveries have all ended well."""
        rows = self._database.rows(
            "SELECT * FROM studies WHERE state = 'settled' AND last_at <= ? AND NOT EXISTS ("
            " SELECT 1 FROM jobs WHERE jobs.study = studies.study AND state NOT IN ('done', 'superseded'))"
            " AND NOT EXISTS (SELECT 1 FROM deliveries JOIN jobs ON deliveries.job = jobs.key"
            " WHERE jobs.study = studies.study AND deliveries.state != 'done') ORDER BY last_at",
            (before,),
        )
        return [_study(row) for row in rows]

    def removed(self, study: Study, now: float) -> bool:
        """The images of a study are about to go; False where it has changed since. Kept in the history."""
        with self._database.change() as connection:
            changed = connection.execute(
                "UPDATE studies SET state = 'removed' WHERE study = ? AND version = ? AND state = 'settled'",
                (study.uid, study.version),
            )
            if changed.rowcount == 0:
                return False
            connection.execute("UPDATE instances SET removed_at = ? WHERE study = ?", (now, study.uid))
            connection.execute(
                "INSERT INTO history VALUES (?, ?, 'images removed', 'retention.images_days')", (now, study.uid)
            )
            return True


def content_digest(instances: Sequence[Instance]) -> str:
    """Tells apart two versions of a series: SHA-256 over its instances and their contents."""
    digest = hashlib.sha256()
    for one in sorted(instances, key=lambda instance: instance.uid):
        digest.update(f"{one.uid} {one.sha256}\n".encode())
    return digest.hexdigest()


def _study(row: sqlite3.Row) -> Study:
    return Study(row["study"], StudyState(row["state"]), row["version"], row["first_at"], row["last_at"])


def _instance(row: sqlite3.Row) -> Instance:
    names = ("series", "study", "sha256", "bytes", "door", "sequence")
    return Instance(row["instance"], *(row[name] for name in names))
