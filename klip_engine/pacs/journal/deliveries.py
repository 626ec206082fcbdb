"""Deliveries: one result object on its way to one destination.

waiting -> done | committing -> done
        -> waiting (to be tried again)          committing -> waiting (not committed: sent again)
        -> dead (refused for good, or failing for too long) -> waiting (on request)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from klip_engine.pacs.journal.database import Database


class DeliveryState(StrEnum):
    """Where an object is on its way out."""

    WAITING = "waiting"
    COMMITTING = "committing"
    DONE = "done"
    DEAD = "dead"


@dataclass(frozen=True)
class Delivery:
    """One object for one destination. file, fallback: names inside the job's result folder."""

    id: int
    job: str
    destination: str
    object: str
    file: str
    fallback: str
    state: DeliveryState
    attempts: int
    not_before: float
    reason: str
    created_at: float
    failing_since: float | None
    ended_at: float | None


class Deliveries:
    """Questions about and changes of deliveries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, destination: str, now: float, limit: int = 50) -> list[Delivery]:
        """What may be sent to a destination now: all objects of the oldest job first."""
        return self._select(
            "destination = ? AND state = 'waiting' AND not_before <= ? ORDER BY id LIMIT ?",
            (destination, now, limit),
        )

    def uncommitted(self, destination: str) -> list[Delivery]:
        """What was sent, but not committed yet."""
        return self._select("destination = ? AND state = 'committing' ORDER BY id", (destination,))

    def overdue(self, destination: str, now: float) -> list[Delivery]:
        """What was sent, but not committed in time."""
        return [delivery for delivery in self.uncommitted(destination) if delivery.not_before <= now]

    def in_state(self, *states: DeliveryState, limit: int = 100) -> list[Delivery]:
        """Deliveries by state, the newest first."""
        marks = ", ".join("?" * len(states))
        return self._select(f"state IN ({marks}) ORDER BY id DESC LIMIT ?", (*states, limit))

    def of_job(self, job: str) -> list[Delivery]:
        """All deliveries of a job."""
        return self._select("job = ? ORDER BY id", (job,))

    def counts(self) -> dict[tuple[str, str], int]:
        """Deliveries by destination and state."""
        rows = self._database.rows(
            "SELECT destination, state, COUNT(*) AS number FROM deliveries GROUP BY destination, state"
        )
        return {(row["destination"], row["state"]): row["number"] for row in rows}

    def done(self, delivery: Delivery, now: float) -> None:
        """It arrived."""
        self._set(delivery, "state = 'done', reason = '', failing_since = NULL, ended_at = ?", now)

    def committing(self, delivery: Delivery, until: float) -> None:
        """It was sent and its storage commitment is awaited until a moment."""
        self._set(delivery, "state = 'committing', reason = '', failing_since = NULL, not_before = ?", until)

    def try_again(self, delivery: Delivery, not_before: float, reason: str, now: float) -> None:
        """The attempt failed, perhaps not for good."""
        self._set(
            delivery,
            "state = 'waiting', attempts = attempts + 1, not_before = ?, reason = ?,"
            " failing_since = COALESCE(failing_since, ?)",
            not_before,
            reason,
            now,
        )

    def fall_back(self, delivery: Delivery, reason: str) -> None:
        """The object was refused for what it is: send the other one instead, at once."""
        self._set(
            delivery, "file = fallback, fallback = '', not_before = 0, failing_since = NULL, reason = ?", reason
        )

    def bury(self, delivery: Delivery, reason: str, now: float) -> None:
        """It failed for good."""
        self._set(delivery, "state = 'dead', reason = ?, ended_at = ?", reason, now)

    def revive(self) -> int:
        """Dead deliveries are tried again, on request. Returns how many."""
        with self._database.change() as connection:
            return connection.execute(
                "UPDATE deliveries SET state = 'waiting', attempts = 0, not_before = 0, failing_since = NULL,"
                " ended_at = NULL WHERE state = 'dead'"
            ).rowcount

    def _select(self, condition: str, values: Sequence[object]) -> list[Delivery]:
        return [
            _delivery(row) for row in self._database.rows(f"SELECT * FROM deliveries WHERE {condition}", values)
        ]

    def _set(self, delivery: Delivery, assignments: str, *values: object) -> None:
        with self._database.change() as connection:
            connection.execute(f"UPDATE deliveries SET {assignments} WHERE id = ?", (*values, delivery.id))


def _delivery(row: sqlite3.Row) -> Delivery:
    names = ("attempts", "not_before", "reason", "created_at", "failing_since", "ended_at")
    return Delivery(
        row["id"],
        row["job"],
        row["destination"],
        row["object"],
        row["file"],
        row["fallback"],
        DeliveryState(row["state"]),
        *(row[name] for name in names),
    )
