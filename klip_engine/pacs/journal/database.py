"""The SQLite file below the journal: durable (WAL, synchronous FULL), checked at start, shared by threads."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from klip_engine.errors import InputError, ResourceError

VERSION = 1

_SCHEMA = """
CREATE TABLE studies (
    study TEXT PRIMARY KEY, state TEXT NOT NULL, version INTEGER NOT NULL, first_at REAL NOT NULL,
    last_at REAL NOT NULL
);
CREATE TABLE instances (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, instance TEXT NOT NULL UNIQUE, series TEXT NOT NULL,
    study TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, door TEXT NOT NULL, at REAL NOT NULL,
    removed_at REAL
);
CREATE INDEX instances_by_series ON instances (series, sequence);
CREATE INDEX instances_by_study ON instances (study);
CREATE TABLE series (series TEXT NOT NULL, study TEXT NOT NULL, chosen INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (study, series));
CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, study TEXT NOT NULL,
    series TEXT NOT NULL, through INTEGER NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '', created_at REAL NOT NULL,
    started_at REAL, ended_at REAL, removed_at REAL
);
CREATE INDEX jobs_by_state ON jobs (state, not_before);
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, destination TEXT NOT NULL, object TEXT NOT NULL,
    file TEXT NOT NULL, fallback TEXT NOT NULL DEFAULT '', state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, not_before REAL NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
    created_at REAL NOT NULL, failing_since REAL, ended_at REAL, UNIQUE (job, destination, object)
);
CREATE INDEX deliveries_by_state ON deliveries (state, not_before);
CREATE TABLE cursors (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE history (
    at REAL NOT NULL, study TEXT NOT NULL, what TEXT NOT NULL, reason TEXT NOT NULL
);
"""


class Database:
    """One connection that threads take turns on; every change is a transaction, flushed when it ends."""

    def __init__(self, file: Path) -> None:
        """Open or make the file. Raises InputError when it is damaged or of another version."""
        self._lock = threading.RLock()
        self._file = file
        try:
            self._connection = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
            os.chmod(file, 0o600)
            self._prepare()
        except sqlite3.DatabaseError as error:
            raise InputError(f"the journal {file} is damaged; put a saved copy back ({error})") from error

    def _prepare(self) -> None:
        found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        with self.change():
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {VERSION}")
            elif version != VERSION:
                raise InputError(
                    f"the journal {self._file} is of version {version}, this program's is {VERSION}; "
                    "run the version of klip-engine that wrote it"
                )

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """A transaction: on the disk when the block ends, undone when it raises. ResourceError on a full disk."""
        with self._lock:
            if self._connection.in_transaction:  # part of a larger change
                yield self._connection
                return
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if "full" in str(error) or "disk I/O" in str(error):
                    raise ResourceError(f"the disk of the journal {self._file} is full; free some space") from error
                raise

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def row(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        rows = self.rows(query, values)
        return rows[0] if rows else None

    def close(self) -> None:
        """Nothing may be asked afterwards."""
        with self._lock:
            self._connection.close()
