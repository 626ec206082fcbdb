"""/health: 200 where the work is done, 503 where it is not, and every reason as a sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from klip_engine.detection import NOTICE
from klip_engine.pacs.status.answers import Answers
from klip_engine.pacs.status.health import Condition, examine
from klip_engine.pacs.status.snapshot import Camera
from tests.pacs.busy_journal import NOW, Busy, get


def test_health_tells_what_wants_attention(answers):
    code, body = get(answers, "/health")
    told = json.loads(body)
    assert (code, told["status"], told["failures"]) == (200, "attention", [])
    assert told["concerns"] == [
        "2 dead letters: failed for good, wait for a person",
        "results for viewer have been waiting for 43 min: the server cannot be reached",
    ]
    assert (told["jobs_waiting"], told["deliveries_waiting"], told["dead_letters"]) == (1, 4, 2)
    assert told["notice"] == NOTICE


def test_health_is_well_where_nothing_is_wrong(scene):
    snapshot = Camera(scene.watched).take()
    scene.journal.jobs.revive()
    scene.journal.deliveries.revive()
    for one in scene.journal.deliveries.due("viewer", NOW + 1000) + scene.journal.deliveries.due("archive", NOW):
        scene.journal.deliveries.done(one, NOW)
    assert examine(snapshot, scene.tally, job_limit_s=3600).condition is Condition.ATTENTION
    now = Camera(scene.watched).take()
    assert examine(now, scene.tally, job_limit_s=3600).condition is Condition.WELL


def broken_part(scene: Busy) -> None:
    object.__setattr__(scene.watched, "threads", lambda: {"intake": True, "worker": False})


def failing_part(scene: Busy) -> None:
    scene.tally.add("part-failed", NOW - 3, {"part": "intake", "reason": "OSError"}, is_trouble=True)


def full_disk(scene: Busy) -> None:
    free = shutil.disk_usage(scene.config.state).free >> 20
    object.__setattr__(scene.watched, "config", replace(scene.config, free_disk_mb=free + 100_000))


def damaged_journal(scene: Busy) -> None:
    scene.journal.close()
    (scene.config.state / "journal.sqlite").write_bytes(b"no database" * 1000)


def endless_run(scene: Busy) -> None:
    object.__setattr__(scene.watched, "clock", lambda: NOW + 5 * 3600)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (broken_part, "the part 'worker' has ended"),
        (failing_part, "the part 'intake' fails and is tried again: OSError"),
        (full_disk, "the disk is full"),
        (damaged_journal, "the journal cannot be read"),
        (endless_run, "runs for longer than it may"),
    ],
)
def test_health_is_503_where_the_work_is_not_done(scene, fault, sentence):
    fault(scene)
    answers = Answers(scene.config.status, scene.watched, scene.journal, lambda *_, **__: None)
    code, body = get(answers, "/health")
    assert code == 503
    assert json.loads(body)["status"] == "failing"
    assert any(sentence in one for one in json.loads(body)["failures"])
    assert sentence in get(answers, "/")[1].replace("&#x27;", "'")  # the page works all the same
    assert 'klip_health{condition="failing"} 1' in get(answers, "/metrics")[1]
