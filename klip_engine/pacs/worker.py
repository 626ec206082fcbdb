"""Runs jobs, one after the other: images linked into the job's folder, the engine run, the results posted.

STATE/jobs/KEY/input/00000.dcm ...    the images as they were when the study was settled
STATE/jobs/KEY/result/                what `klip-engine detect --dicom` writes, complete or absent
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from klip_engine.files import writable_folder
from klip_engine.pacs.config import ServiceConfig
from klip_engine.pacs.dead_letters import DeadLetters
from klip_engine.pacs.engine_run import Ending, EngineCommand, RunResult, run_engine
from klip_engine.pacs.event_log import Events, Level
from klip_engine.pacs.journal import Job, Journal
from klip_engine.pacs.journal.jobs import Parcel
from klip_engine.pacs.pseudonyms import Pseudonyms
from klip_engine.pacs.spool import Spool

_FIRST_PAUSE_S = 30.0


class Worker:
    """Takes jobs from the journal."""

    def __init__(
        self,
        config: ServiceConfig,
        journal: Journal,
        spool: Spool,
        pseudonyms: Pseudonyms,
        events: Events,
        command: EngineCommand,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._journal, self._spool = config, journal, spool
        self._pseudonyms, self._events, self._command, self._clock = pseudonyms, events, command, clock
        self._jobs = writable_folder(config.state / "jobs")
        self._dead = DeadLetters(config.state)
        self.progress: tuple[str, str, int, int] | None = None
        """Of the run in hand, for the status page: job, stage, done, total."""

    def run_next(self, stop: threading.Event) -> bool:
        """Run the oldest job that waits; False where none does."""
        job = self._journal.jobs.next(self._clock())
        if job is None:
            return False
        self._journal.jobs.start(job, self._clock())
        self._say("job-started", job)
        self._settle(job, self._run(job, stop))
        self.progress = None
        return True

    def result(self, key: str) -> Path:
        """The result folder of a job."""
        return self._jobs / key / "result"

    def remove(self, key: str) -> None:
        """Remove a job's folder; the journal has to know of it before."""
        shutil.rmtree(self._jobs / key, ignore_errors=True)

    def _run(self, job: Job, stop: threading.Event) -> RunResult:
        folder = writable_folder(self._jobs / job.key)

        def is_done() -> bool:
            return (self.result(job.key) / "findings.json").is_file()

        def tell(stage: str, done: int, total: int) -> None:
            self.progress = (job.key, stage, done, total)

        if not is_done():
            self._link_input(job, folder / "input")
        return run_engine(
            self._command(folder / "input", self.result(job.key)),
            folder,
            time_limit_s=60 * self._config.engine.time_limit_min,
            is_done=is_done,
            stop=stop,
            progress=tell,
        )

    def _link_input(self, job: Job, folder: Path) -> None:
        """The images of the job's version of the series, whatever arrives meanwhile."""
        folder.mkdir(exist_ok=True)
        for number, instance in enumerate(self._journal.studies.of_series(job.study, job.series, job.through)):
            link = folder / f"{number:05}.dcm"
            if link.exists():
                continue
            try:
                os.link(self._spool.file(instance), link)
            except OSError:  # a file system without links
                shutil.copyfile(self._spool.file(instance), link)

    def _settle(self, job: Job, result: RunResult) -> None:
        now = self._clock()
        attempts = job.attempts + 1
        if result.ending is Ending.DONE:
            posted = self._journal.jobs.finish(job, self._parcels(job), now)
            shutil.rmtree(self._jobs / job.key / "input", ignore_errors=True)
            self._say("job-done" if posted else "job-superseded", job)
        elif result.ending is Ending.STOPPED:
            self._journal.jobs.stopped(job)
            self._say("job-stopped", job)
        elif result.ending is Ending.FAILED and attempts < self._config.engine.attempts:
            pause = _FIRST_PAUSE_S * 2 ** (attempts - 1)
            self._journal.jobs.try_again(job, now + pause, result.reason)
            self._say("job-failed", job, Level.WARNING, attempts=attempts, reason=result.reason)
        else:
            self._dead.bury_job(job, result.reason)
            self._journal.jobs.bury(job, result.reason, now)
            self._say("job-dead", job, Level.ERROR, attempts=attempts, reason=result.reason)

    def _parcels(self, job: Job) -> list[Parcel]:
        """One for every object that was made (a result without findings has no segmentation) and destination."""
        parcels = []
        for destination in self._config.destinations:
            for kind in destination.objects:
                file = Path("dicom", f"{kind}.dcm")
                if (self.result(job.key) / file).is_file():
                    fallback = "dicom/seg.dcm" if kind == "labelmap" else ""
                    parcels.append(Parcel(destination.name, kind, file.as_posix(), fallback))
        return parcels

    def _say(self, event: str, job: Job, level: Level = Level.INFO, **facts: str | int) -> None:
        name = self._pseudonyms.short
        self._events(event, level, job=job.key[:12], study=name(job.study), series=name(job.series), **facts)
