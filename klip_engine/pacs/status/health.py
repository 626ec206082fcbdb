"""Is the service well? Three answers, with every reason as a sentence.

well        all parts run
attention   it works, but a person should look: dead letters, a destination that is away, a full disk in sight
failing     it does not do its work: a part has ended, the journal cannot be read, the disk is full
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from klip_engine.pacs.event_tally import EventTally
from klip_engine.pacs.journal.overview import Overview
from klip_engine.pacs.status.ages import duration
from klip_engine.pacs.status.snapshot import Snapshot
from klip_engine.words import counted

_AWAY_AFTER_S = 300.0
_PART_FAILED_WITHIN_S = 30.0


class Condition(StrEnum):
    """The answer in one word."""

    WELL = "well"
    ATTENTION = "attention"
    FAILING = "failing"


@dataclass(frozen=True)
class Health:
    """The answer and its reasons: `failures` make it failing, `concerns` want attention."""

    failures: tuple[str, ...]
    concerns: tuple[str, ...]

    @property
    def condition(self) -> Condition:
        """In one word."""
        if self.failures:
            return Condition.FAILING
        return Condition.ATTENTION if self.concerns else Condition.WELL


def examine(snapshot: Snapshot, tally: EventTally, *, job_limit_s: float) -> Health:
    """Judge a snapshot. job_limit_s: how long a run may take before it should have been ended."""
    failures = [f"the part '{name}' has ended; restart the service" for name, runs in _sorted(snapshot) if not runs]
    failed = tally.last("part-failed")
    if failed is not None and snapshot.at - failed.at < _PART_FAILED_WITHIN_S:
        facts = dict(failed.facts)
        failures.append(f"the part '{facts.get('part', '?')}' fails and is tried again: {facts.get('reason', '')}")
    concerns: list[str] = []
    if snapshot.disk_free < snapshot.disk_reserve:
        failures.append("the disk is full: images are refused until there is room; free some space")
    elif snapshot.disk_free < 2 * snapshot.disk_reserve:
        concerns.append("the disk is nearly full; soon images will be refused")
    if snapshot.journal is None:
        failures.append("the journal cannot be read; look at the state folder and its disk")
    else:
        failures += _overdue(snapshot, snapshot.journal, job_limit_s)
        concerns += _concerns(snapshot, snapshot.journal)
    return Health(tuple(failures), tuple(concerns))


def health_document(snapshot: Snapshot, health: Health, version: str, notice: str) -> dict[str, object]:
    """What /health answers."""
    journal = snapshot.journal
    return {
        "status": health.condition.value,
        "failures": list(health.failures),
        "concerns": list(health.concerns),
        "version": version,
        "up_s": round(snapshot.at - snapshot.started_at, 1),
        "jobs_waiting": journal.jobs.get("queued", 0) if journal else None,
        "deliveries_waiting": waiting_deliveries(journal) if journal else None,
        "dead_letters": dead_letters(journal) if journal else None,
        "disk_free_bytes": snapshot.disk_free,
        "notice": notice,
    }


def waiting_deliveries(journal: Overview) -> int:
    """Objects that are on their way to a destination."""
    return sum(d.counts.get("waiting", 0) + d.counts.get("committing", 0) for d in journal.destinations)


def dead_letters(journal: Overview) -> int:
    """Jobs and deliveries that failed for good."""
    return journal.jobs.get("dead", 0) + sum(d.counts.get("dead", 0) for d in journal.destinations)


def _sorted(snapshot: Snapshot) -> list[tuple[str, bool]]:
    return sorted(snapshot.threads.items())


def _overdue(snapshot: Snapshot, journal: Overview, job_limit_s: float) -> list[str]:
    """A run that neither ended nor was ended."""
    late = [job for job in journal.running if snapshot.at - (job.started_at or snapshot.at) > job_limit_s + 300]
    return [f"job {job.key[:12]} runs for longer than it may; restart the service" for job in late]


def _concerns(snapshot: Snapshot, journal: Overview) -> list[str]:
    concerns = []
    dead = dead_letters(journal)
    if dead:
        concerns.append(f"{counted(dead, 'dead letter')}: failed for good, wait for a person")
    for one in journal.destinations:
        since = one.failing_since
        if since is not None and snapshot.at - since > _AWAY_AFTER_S:
            waits = duration(snapshot.at - since)
            concerns.append(f"results for {one.name} have been waiting for {waits}: {one.reason}")
    return concerns
