"""What failed for good, for people to look at: STATE/dead/, a folder each with the reason and the object."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from klip_engine.files import write_file
from klip_engine.pacs.journal import Delivery, Job

_AGAIN = "klip-engine serve --retry-dead CONFIG"


class DeadLetters:
    """Writes them; the journal keeps their state."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "dead"

    def bury_job(self, job: Job, reason: str) -> None:
        """A series that could not be processed; its images stay in the spool until the job is dealt with."""
        facts = {"job": job.key, "study": job.study, "series": job.series, "reason": reason, "try again": _AGAIN}
        self._write(f"job-{job.key[:12]}", facts)

    def bury_delivery(self, delivery: Delivery, file: Path, reason: str) -> None:
        """An object that could not be delivered, with the object itself."""
        folder = self._folder / f"delivery-{delivery.job[:12]}-{delivery.id}"
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / file.name
        if file.is_file() and not target.exists():
            try:
                os.link(file, target)
            except OSError:  # a file system without links
                shutil.copyfile(file, target)
        facts = {
            "job": delivery.job,
            "destination": delivery.destination,
            "object": delivery.object,
            "attempts": delivery.attempts + 1,
            "reason": reason,
            "try again": _AGAIN,
        }
        self._write(folder.name, facts)

    def _write(self, name: str, facts: Mapping[str, object]) -> None:
        write_file(self._folder / name / "reason.json", json.dumps(facts, indent=2).encode())
