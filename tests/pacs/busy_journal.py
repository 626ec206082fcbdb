"""A state folder in which much has happened: for the tests and the picture of the status page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from klip_engine.pacs.config import Destination, Listener, Peer, ServiceConfig, Status
from klip_engine.pacs.event_log import Level
from klip_engine.pacs.event_tally import EventTally
from klip_engine.pacs.journal import Instance, Journal, SeriesDecision
from klip_engine.pacs.journal.jobs import Parcel
from klip_engine.pacs.pseudonyms import Pseudonyms
from klip_engine.pacs.status import Watched
from klip_engine.pacs.status.answers import Answers, Request

NOW = 1_767_349_500.0  # a Friday morning in January 2026, 40 seconds into no minute
HOST = {"host": "127.0.0.1:8081"}
STUDIES = tuple(f"1.2.826.0.1.3680043.8.498.{1000 + k}" for k in range(7))
OBJECTS = ("seg", "sr", "pm", "sc")


@dataclass
class Busy:
    """What was made: studies 0 and 1 done, 2 half delivered, 3 dead, 4 in hand, 5 queued, 6 arriving."""

    config: ServiceConfig
    journal: Journal
    tally: EventTally
    watched: Watched


def busy(
    state: Path, now: float = NOW, status: Status | None = None, images: Sequence[int] = (3, 4, 2, 3, 5, 2, 1)
) -> Busy:
    state.mkdir(parents=True, exist_ok=True)
    config = ServiceConfig(
        state,
        (
            Destination("archive", "dicom", host="127.0.0.1", port=4242, ae_title="ARCHIVE"),
            Destination("viewer", "dicomweb", url="http://127.0.0.1:8042/dicom-web"),
        ),
        listener=Listener(port=0, peers=(Peer("CT1"), Peer("CT2"))),
        status=status or Status(port=0),
        free_disk_mb=1,
    )
    journal, tally = Journal(state), EventTally()
    for k, study in enumerate(STUDIES):
        at = now - (86400, 7900, 3100, 2400, 1500, 700, 20)[k]
        for number in range(images[k]):
            uid = f"{study}.2.{number}"
            journal.studies.record(Instance(uid, f"{study}.2", study, "0" * 64, 1000, "dicom:CT1"), at)
            tally.add("instance-stored", at + number * 0.4, {}, is_trouble=False)
        if k < 6:
            _settle(journal, k, study, at + 60)
    _process(journal, now)
    _trouble(tally, now)
    names = Pseudonyms(b"0" * 32)
    return Busy(config, journal, tally, _watched(config, tally, names, now))


def get(answers: Answers, target: str, **headers: str) -> tuple[int, str]:
    answer = answers(Request("GET", target, HOST | headers))
    return answer.code, answer.body.decode()


def key(k: int) -> str:
    return f"{k + 1:x}c0ffee5{k}".ljust(32, "a")


def _settle(journal: Journal, k: int, study: str, at: float) -> None:
    found = journal.studies.study(study)
    assert found is not None
    decisions = [SeriesDecision(f"{study}.2", True, "fits the rules", key(k), 10_000)]
    decisions.append(SeriesDecision(f"{study}.1", False, "a localizer"))
    if k % 2:
        decisions.append(SeriesDecision(f"{study}.3", False, "slices too thick (rules.max_slice_thickness_mm)"))
    assert journal.studies.settle(found, decisions, at)


def _process(journal: Journal, now: float) -> None:
    for k, (begun, took) in enumerate(((86300, 410.0), (7800, 655.0), (3000, 380.0))):
        job = journal.jobs.get(key(k))
        assert job is not None
        journal.jobs.start(job, now - begun)
        parcels = [Parcel(name, one, f"dicom/{one}.dcm") for name in ("archive", "viewer") for one in OBJECTS]
        journal.jobs.finish(job, parcels, now - begun + took)
    for delivery in [one for k in range(3) for one in journal.deliveries.of_job(key(k))]:
        if delivery.job != key(2) or delivery.destination == "archive":
            journal.deliveries.done(delivery, delivery.created_at + 4)
        else:
            journal.deliveries.try_again(delivery, now + 90, "the server cannot be reached", now - 2600)
    refused = next(one for one in journal.deliveries.of_job(key(1)) if one.object == "pm")
    journal.deliveries.bury(refused, "the peer answers 0xA900", now - 7000)
    dead, running = journal.jobs.get(key(3)), journal.jobs.get(key(4))
    assert dead is not None
    assert running is not None
    journal.jobs.start(dead, now - 2300)
    journal.jobs.bury(dead, "the slices of 1.2.826.0.1.3680043.8.498.1003.2 are not evenly spaced", now - 2290)
    journal.jobs.start(running, now - 260)


def _trouble(tally: EventTally, now: float) -> None:
    away = {"destination": "viewer", "object": "seg", "reason": "the server cannot be reached"}
    for k in range(9):
        tally.add("not-delivered", now - 2600 + 300 * k, away, is_trouble=True)
    tally.add("association-rejected", now - 1900, {"address": "10.1.4.7"}, is_trouble=True)
    dead = {"job": key(3)[:12], "attempts": 1, "reason": "the slices are not evenly spaced"}
    tally.add("job-dead", now - 2290, dead, is_trouble=Level.ERROR is not Level.INFO)


def _watched(config: ServiceConfig, tally: EventTally, names: Pseudonyms, now: float) -> Watched:
    parts = ("intake", "worker", "listener", "courier archive", "courier viewer", "retention", "status page")
    return Watched(
        config=config,
        tally=tally,
        threads=lambda: dict.fromkeys(parts, True),
        progress=lambda: (key(4), "slices", 92, 250),
        pseudonym=names.short,
        started_at=now - 3 * 86400,
        clock=lambda: now,
    )
