"""Removes what the rules say, never before all results of a study are delivered, and never without a line."""

from __future__ import annotations

import time
from collections.abc import Callable

from klip_engine.pacs.config import Retention
from klip_engine.pacs.event_log import Events
from klip_engine.pacs.journal import Journal
from klip_engine.pacs.pseudonyms import Pseudonyms
from klip_engine.pacs.spool import Spool
from klip_engine.pacs.worker import Worker

_DAY_S = 86400.0


class Keeper:
    """Applies `[retention]`. A study with a dead job or delivery stays until that is mended."""

    def __init__(
        self,
        rules: Retention,
        journal: Journal,
        spool: Spool,
        worker: Worker,
        pseudonyms: Pseudonyms,
        events: Events,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules, self._journal, self._spool, self._worker = rules, journal, spool, worker
        self._pseudonyms, self._events, self._clock = pseudonyms, events, clock

    def recover(self) -> None:
        """Finish what was journaled as removed when the last run died."""
        for job in self._journal.jobs.removed_ones():
            self._worker.remove(job.key)

    def sweep(self) -> int:
        """Remove what is due; returns how many studies and jobs."""
        now, removed = self._clock(), 0
        if self._rules.images_days:
            for study in self._journal.studies.removable(now - self._rules.images_days * _DAY_S):
                if self._spool.remove_study(study):
                    self._events("images-removed", study=self._pseudonyms.short(study.uid), rule="images_days")
                    removed += 1
        if self._rules.results_days:
            for job in self._journal.jobs.removable(now - self._rules.results_days * _DAY_S):
                self._journal.jobs.removed(job, now)
                self._worker.remove(job.key)
                self._events("results-removed", study=self._pseudonyms.short(job.study), rule="results_days")
                removed += 1
        return removed
