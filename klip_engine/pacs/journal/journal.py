"""The journal as the service's parts see it."""

from __future__ import annotations

from pathlib import Path

from klip_engine.pacs.journal.database import Database
from klip_engine.pacs.journal.deliveries import Deliveries
from klip_engine.pacs.journal.jobs import Jobs
from klip_engine.pacs.journal.studies import Studies

JOURNAL_FILE = "journal.sqlite"


class Journal:
    """Studies, jobs and deliveries, each with its states and transitions; safe to use from several threads.

    Every change is on the disk when its call returns. Two processes may have it open (`serve --retry-dead` beside
    the running service). Raises InputError when the file is damaged, ResourceError when the disk is full.
    """

    def __init__(self, state: Path) -> None:
        self._database = Database(state / JOURNAL_FILE)
        self.studies = Studies(self._database)
        self.jobs = Jobs(self._database)
        self.deliveries = Deliveries(self._database)

    def cursor(self, name: str) -> str:
        """How far a watcher has come; empty at its first start."""
        row = self._database.row("SELECT value FROM cursors WHERE name = ?", (name,))
        return row["value"] if row else ""

    def set_cursor(self, name: str, value: str) -> None:
        """A watcher has come so far, and all before is in the spool."""
        with self._database.change() as connection:
            connection.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (name, value))

    def history(self, limit: int = 100) -> list[tuple[float, str, str, str]]:
        """What retention removed, the newest first: moment, study, what, by which rule."""
        rows = self._database.rows("SELECT * FROM history ORDER BY at DESC LIMIT ?", (limit,))
        return [(row["at"], row["study"], row["what"], row["reason"]) for row in rows]

    def is_intact(self) -> bool:
        """SQLite's full check of the file."""
        row = self._database.row("PRAGMA integrity_check(1)")
        return row is not None and row[0] == "ok"

    def close(self) -> None:
        """Nothing may be asked afterwards."""
        self._database.close()
