"""The metrics, in Prometheus' text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).

Labels hold states and names from the configuration, never anything of a study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from klip_engine.pacs.event_tally import EventTally
from klip_engine.pacs.journal import DeliveryState, JobState, StudyState
from klip_engine.pacs.journal.overview import Overview, Spread
from klip_engine.pacs.status.health import Condition, Health
from klip_engine.pacs.status.snapshot import Snapshot
from klip_engine.version import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]
Sample = tuple[Labels, float]

_RECEIVED = {"new": "instance-stored", "again": "instance-again", "differs": "instance-differs"}


def render_metrics(snapshot: Snapshot, health: Health, tally: EventTally) -> str:
    """All metrics. Counters named `..._total` start at 0 with the service, the others come from the journal."""
    lines = [*_process(snapshot, health), *_events(tally)]
    if snapshot.journal is not None:
        lines += _journal(snapshot, snapshot.journal)
    return "\n".join(lines) + "\n"


def _process(snapshot: Snapshot, health: Health) -> Iterator[str]:
    yield from _metric("klip_info", "gauge", "The version that runs.", [({"version": __version__}, 1)])
    states = [({"condition": one.value}, float(health.condition is one)) for one in Condition]
    yield from _metric("klip_health", "gauge", "1 for what /health says now.", states)
    yield from _gauge("klip_start_time_seconds", "When the service started.", snapshot.started_at)
    parts = [({"part": name}, float(runs)) for name, runs in sorted(snapshot.threads.items())]
    yield from _metric("klip_part_up", "gauge", "1 where a part of the service runs.", parts)
    yield from _gauge("klip_disk_free_bytes", "Free on the disk of the state folder.", snapshot.disk_free)
    yield from _gauge("klip_disk_reserve_bytes", "Below so much free, images are refused.", snapshot.disk_reserve)


def _events(tally: EventTally) -> Iterator[str]:
    counts = dict(tally.counts)
    received = [({"outcome": outcome}, float(counts.get(name, 0))) for outcome, name in _RECEIVED.items()]
    help_text = "Images accepted since the start: new, the same again, another one under the same UID."
    yield from _metric("klip_instances_received_total", "counter", help_text, received)
    for name, event, help_text in (
        ("klip_instances_refused_total", "instance-refused", "Images refused since the start."),
        ("klip_associations_rejected_total", "association-rejected", "Callers not on the list, since the start."),
        ("klip_part_failures_total", "part-failed", "Failures of parts that were tried again, since the start."),
    ):
        yield from _metric(name, "counter", help_text, [({}, float(counts.get(event, 0)))])
    events = [({"event": name}, float(count)) for name, count in sorted(counts.items())]
    yield from _metric("klip_events_total", "counter", "Log lines by event since the start.", events)


def _journal(snapshot: Snapshot, journal: Overview) -> Iterator[str]:
    now = snapshot.at
    yield from _gauge("klip_instances", "Images ever received.", journal.instances_ever)
    yield from _states("klip_studies", "Studies by state.", [one.value for one in StudyState], journal.studies)
    yield from _states("klip_jobs", "Jobs by state.", [one.value for one in JobState], journal.jobs)
    queued = now - journal.oldest_queued if journal.oldest_queued is not None else 0.0
    yield from _gauge("klip_jobs_oldest_queued_seconds", "How long the oldest queued job has waited.", queued)
    running = max((now - (job.started_at or now) for job in journal.running), default=0.0)
    yield from _gauge("klip_job_running_seconds", "How long the run in hand has taken.", running)
    if journal.last_received is not None:
        yield from _gauge("klip_last_received_time_seconds", "When the last image came.", journal.last_received)
    yield from _destinations(now, journal)
    dead = [({"kind": "job"}, float(journal.jobs.get("dead", 0)))]
    dead += [({"kind": "delivery"}, float(sum(one.counts.get("dead", 0) for one in journal.destinations)))]
    yield from _metric("klip_dead_letters", "gauge", "What failed for good and waits for a person.", dead)
    yield from _histogram("klip_job_seconds", "Duration of runs that were done.", journal.job_seconds)
    yield from _histogram(
        "klip_delivery_seconds", "From a result being there to its arrival.", journal.delivery_seconds
    )
    yield from _gauge("klip_removals", "Studies and results removed by the rules of retention.", journal.removed)


def _destinations(now: float, journal: Overview) -> Iterator[str]:
    rows = journal.destinations
    counts = [
        ({"destination": row.name, "state": state.value}, float(row.counts.get(state.value, 0)))
        for row in rows
        for state in DeliveryState
    ]
    yield from _metric("klip_deliveries", "gauge", "Result objects by destination and state.", counts)
    for name, help_text, moments in (
        (
            "klip_deliveries_oldest_waiting_seconds",
            "How long the oldest object has waited for its destination.",
            [(row.name, row.oldest_waiting) for row in rows],
        ),
        (
            "klip_destination_failing_seconds",
            "For how long sending has failed.",
            [(row.name, row.failing_since) for row in rows],
        ),
    ):
        samples = [({"destination": one}, now - since if since is not None else 0.0) for one, since in moments]
        yield from _metric(name, "gauge", help_text, samples)


def _states(name: str, help_text: str, states: Sequence[str], counts: Mapping[str, int]) -> Iterator[str]:
    yield from _metric(name, "gauge", help_text, [({"state": one}, float(counts.get(one, 0))) for one in states])


def _gauge(name: str, help_text: str, value: float) -> Iterator[str]:
    yield from _metric(name, "gauge", help_text, [({}, value)])


def _histogram(name: str, help_text: str, spread: Spread) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} histogram"
    for bound, count in (*spread.at_most, (float("inf"), spread.count)):
        yield _line(f"{name}_bucket", {"le": "+Inf" if bound == float("inf") else f"{bound:g}"}, count)
    yield _line(f"{name}_sum", {}, spread.total)
    yield _line(f"{name}_count", {}, spread.count)


def _metric(name: str, kind: str, help_text: str, samples: Sequence[Sample]) -> Iterator[str]:
    if not samples:
        return
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield _line(name, labels, value)


def _line(name: str, labels: Labels, value: float) -> str:
    shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    number = str(int(value)) if float(value).is_integer() else repr(float(value))
    return f"{name}{{{shown}}} {number}" if shown else f"{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
