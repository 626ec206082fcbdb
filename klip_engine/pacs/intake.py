"""From quiet studies to jobs: decides what is processed and gives every job the key of what it is made of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from klip_engine.errors import InputError, UsageError
from klip_engine.pacs.config import Engine, ServiceConfig
from klip_engine.pacs.event_log import Events
from klip_engine.pacs.journal import Journal, SeriesDecision, Study
from klip_engine.pacs.journal.studies import content_digest
from klip_engine.pacs.pseudonyms import Pseudonyms
from klip_engine.pacs.rules import SeriesFacts, Verdict, choose_series, read_series_facts
from klip_engine.pacs.spool import Spool
from klip_engine.version import __version__


class Intake:
    """Settles studies that have been quiet for long enough."""

    def __init__(
        self,
        config: ServiceConfig,
        journal: Journal,
        spool: Spool,
        pseudonyms: Pseudonyms,
        events: Events,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules, self._journal, self._spool = config.rules, journal, spool
        self._pseudonyms, self._events, self._clock = pseudonyms, events, clock
        self._engine = engine_identity(config.engine)

    def settle_quiet(self) -> int:
        """Decide on all quiet studies; returns how many jobs that made or had made before."""
        jobs = 0
        for study in self._journal.studies.quiet_since(self._clock() - self._rules.quiet_s):
            jobs += self._settle(study)
        return jobs

    def _settle(self, study: Study) -> int:
        verdicts = self._verdicts(study)
        decisions = [self._decision(study, verdict) for verdict in verdicts]
        if not self._journal.studies.settle(study, decisions, self._clock()):
            return 0
        name = self._pseudonyms.short
        for one in decisions:
            what, job = ("series-chosen", one.job_key[:12]) if one.chosen else ("series-left-out", None)
            self._events(what, study=name(study.uid), series=name(one.series), job=job, reason=one.reason)
        return sum(one.chosen for one in decisions)

    def _verdicts(self, study: Study) -> list[Verdict]:
        facts: list[SeriesFacts] = []
        unreadable: list[Verdict] = []
        for series in self._journal.studies.series_of(study.uid):
            files = [self._spool.file(one) for one in self._journal.studies.of_series(study.uid, series)]
            try:
                facts.append(read_series_facts(series, files))
            except InputError as error:
                unreadable.append(Verdict(series, False, str(error)))
        return choose_series(facts, self._rules) + unreadable

    def _decision(self, study: Study, verdict: Verdict) -> SeriesDecision:
        if not verdict.chosen:
            return SeriesDecision(verdict.series, False, verdict.reason)
        instances = self._journal.studies.of_series(study.uid, verdict.series)
        made_of = [study.uid, verdict.series, content_digest(instances), self._engine]
        key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:32]
        through = max(one.sequence for one in instances)
        return SeriesDecision(verdict.series, True, verdict.reason, key, through)


def engine_identity(engine: Engine) -> str:
    """What decides over a result besides the images: version, prior and settings; not how often it is tried."""
    facts = dataclasses.asdict(engine)
    for name in ("time_limit_min", "attempts", "device"):
        facts.pop(name)
    bundle = Path(engine.prior)
    if bundle.is_dir():
        facts["prior"] = [_file_digest(file) for file in sorted(bundle.rglob("*")) if file.is_file()]
    if engine.settings is not None:
        facts["settings"] = _file_digest(engine.settings)
    return json.dumps([__version__, facts], sort_keys=True)


def _file_digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"engine: cannot read {file} ({error.strerror})") from error
