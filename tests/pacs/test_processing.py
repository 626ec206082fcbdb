"""From quiet studies to results: rules, versions of a series, runs that fail, retention."""

from __future__ import annotations

import dataclasses
import json
import sys
import time

import pytest

from klip_engine.pacs.config import Engine, Retention, Rules
from klip_engine.pacs.rules import SeriesFacts, choose_series
from tests.pacs.conftest import config, stand_in, wait_for
from tests.pacs.peers import archive
from tests.pacs.sending import send
from tests.pacs.studies import ct_study
from tests.pacs.test_delivery import to

FIT = SeriesFacts("fit", "CT", 100, 2.5, body_part="CHEST", words="Thorax 2.5")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"modality": "MR"}, "not CT images"),
        ({"has_pixels": False}, "not CT images"),
        ({"is_localizer": True}, "a localizer"),
        ({"is_original": False}, "derived images"),
        ({"words": "Dose report"}, "rules.exclude_description"),
        ({"words": "head"}, "rules.description"),
        ({"body_part": "HEAD"}, "rules.body_parts"),
        ({"slices": 3}, "rules.min_slices"),
        ({"thickness": 8.0}, "rules.max_slice_thickness_mm"),
    ],
)
def test_each_rule_says_its_name(change, reason):
    rules = Rules(description="thorax|dose", body_parts=("chest",))
    (verdict,) = choose_series([dataclasses.replace(FIT, **change)], rules)
    assert not verdict.chosen
    assert reason in verdict.reason


def test_most_slices_first_then_the_thinnest_whatever_the_order():
    thin = dataclasses.replace(FIT, series="thin", thickness=1.0)
    long = dataclasses.replace(FIT, series="long", slices=200, thickness=5.0)
    for found in ([FIT, thin, long], [long, FIT, thin], [thin, long, FIT]):
        chosen = [v.series for v in choose_series(found, Rules(max_series_per_study=1)) if v.chosen]
        assert chosen == ["long"]
        chosen = {v.series for v in choose_series(found, Rules(max_series_per_study=2)) if v.chosen}
        assert chosen == {"long", "thin"}


def test_a_series_that_is_left_out_makes_no_job(running, tmp_path):
    with archive() as peer:
        service = running(config(tmp_path, to(peer)))
        send(ct_study("few", 3), service.listener.port)
        (event,) = wait_for(lambda: running.events("series-left-out"))
        assert event["reason"] == "too few slices (rules.min_slices)"
        assert service.journal.jobs.counts() == {}


def test_the_same_study_again_is_not_processed_again(running, tmp_path):
    study = ct_study("again")
    with archive() as peer:
        service = running(config(tmp_path, to(peer)))
        for _ in range(2):
            send(study, service.listener.port)
            wait_for(lambda: service.journal.deliveries.counts() == {("archive", "done"): 4})
        time.sleep(1.5)
        assert service.journal.jobs.counts() == {"done": 1}
        assert len(peer.arrived) == 4


def test_late_slices_make_a_new_result(running, tmp_path):
    study = ct_study("late", 12)
    with archive() as peer:
        service = running(config(tmp_path, to(peer)))
        send(study[:10], service.listener.port)
        wait_for(lambda: service.journal.deliveries.counts() == {("archive", "done"): 4})
        send(study[10:], service.listener.port)
        wait_for(lambda: service.journal.deliveries.counts() == {("archive", "done"): 8})
        assert len(set(peer.arrived)) == 8
        assert service.journal.jobs.counts() == {"done": 2}


def test_input_that_cannot_be_processed_becomes_a_dead_letter_at_once(running, tmp_path):
    says = '{"event": "error", "message": "the slices are tilted; export them again", "exit_code": 3}'
    with archive() as peer:
        service = running(
            config(tmp_path, to(peer)),
            command=lambda source, out: [sys.executable, "-c", f"print({says!r}); raise SystemExit(3)"],
        )
        send(ct_study("tilted"), service.listener.port)
        wait_for(lambda: service.journal.jobs.counts() == {"dead": 1})
        (reason,) = (tmp_path / "dead").glob("*/reason.json")
        assert json.loads(reason.read_text())["reason"] == "the slices are tilted; export them again"


def test_a_run_that_is_killed_or_hangs_is_tried_again_then_buried(running, tmp_path):
    with archive() as peer:
        service = running(
            config(tmp_path, to(peer), engine=Engine(attempts=1, time_limit_min=0.02)),
            command=lambda source, out: [sys.executable, "-c", "import time; time.sleep(60)"],
        )
        send(ct_study("hangs"), service.listener.port)
        wait_for(lambda: service.journal.jobs.counts() == {"dead": 1})
        (event,) = running.events("job-dead")
        assert "time limit" in event["reason"]


def test_stopping_ends_the_run_and_the_next_start_takes_it_up(running, tmp_path):
    with archive() as peer:
        settings = config(tmp_path, to(peer))
        service = running(settings, command=stand_in(60))
        send(ct_study("stopped"), service.listener.port)
        wait_for(lambda: list(tmp_path.glob("jobs/*/runs.txt")))
        running.stop()
        service = running(settings)
        wait_for(lambda: service.journal.deliveries.counts() == {("archive", "done"): 4})
        assert service.journal.jobs.counts() == {"done": 1}


def test_retention_waits_for_delivery_and_says_what_it_removed(running, tmp_path):
    moment = {"ahead": 0.0}
    with archive(lambda number: 0 if moment["ahead"] else 0xA700) as peer:
        service = running(
            config(tmp_path, to(peer), retention=Retention(images_days=1, results_days=1)),
            clock=lambda: time.time() + moment["ahead"],
        )
        send(ct_study("kept"), service.listener.port)
        wait_for(lambda: peer.asked)
        assert service.keeper.sweep() == 0
        moment["ahead"] = 2 * 86400.0
        wait_for(lambda: service.journal.deliveries.counts() == {("archive", "done"): 4})
        moment["ahead"] = 5 * 86400.0
        assert service.keeper.sweep() == 2
        assert not list(tmp_path.glob("studies/*"))
        assert not list(tmp_path.glob("jobs/*"))
        assert {entry[2] for entry in service.journal.history()} == {"images removed", "results removed"}
        assert running.events("images-removed")
