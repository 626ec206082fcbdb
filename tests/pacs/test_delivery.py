"""Results reach peers that are away, that refuse and that break off; what nobody takes becomes a dead letter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from klip_engine.pacs.config import Destination
from tests.pacs.conftest import by_store, by_stow, config, wait_for
from tests.pacs.orthanc import PROGRAM, WHY_NOT, Orthanc
from tests.pacs.peers import LABEL_MAP, archive, web_server
from tests.pacs.sending import send
from tests.pacs.studies import ct_study

ALL = ("seg", "sr", "pm", "sc")
LATER, NEVER = 0xA700, 0xC000
FAILURE = json.dumps({"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0x0122]}}]}}).encode()


def to(peer, **further) -> Destination:
    place = {"host": "127.0.0.1", "port": peer.port, "ae_title": "ARCHIVE", "longest_pause_s": 0.2, "timeout_s": 10}
    return Destination("archive", "dicom", **place | further)


def web(server, **further) -> Destination:
    return Destination("web", "dicomweb", **{"url": server.url, "longest_pause_s": 0.2, "timeout_s": 10} | further)


def process(running, tmp_path, destination, seed):
    service = running(config(tmp_path, destination))
    send(ct_study(seed), service.listener.port)
    return service


def test_busy_and_breaking_off_then_all_of_it_once(running, tmp_path):
    with archive(lambda number: [LATER, None, 0, None, LATER][number] if number < 5 else 0) as peer:
        service = process(running, tmp_path, to(peer), "faults by C-STORE")
        wait_for(lambda: service.journal.deliveries.counts() == {("archive", "done"): 4})
        assert len(peer.arrived) == len(set(peer.arrived)) == 4


def test_errors_and_closed_connections_of_a_web_server(running, tmp_path):
    answers = [(500, b""), None, (503, b""), (404, b""), (200, b"{}"), (401, b"")]
    with web_server(lambda number: answers[number] if number < len(answers) else (200, b"{}")) as server:
        service = process(running, tmp_path, web(server), "faults by STOW-RS")
        wait_for(lambda: service.journal.deliveries.counts() == {("web", "done"): 4})
        assert server.taken == 4


def test_a_label_map_that_is_refused_goes_as_a_plain_segmentation(running, tmp_path):
    with archive(label_maps=False) as peer:
        service = process(running, tmp_path, to(peer, objects=("labelmap", "sr")), "no label maps")
        wait_for(lambda: service.journal.deliveries.counts() == {("archive", "done"): 2})
        assert LABEL_MAP not in peer.classes
        assert "1.2.840.10008.5.1.4.1.1.66.4" in peer.classes


def test_where_both_are_wanted_the_plain_one_goes_once(running, tmp_path):
    with archive(label_maps=False) as peer:
        service = process(running, tmp_path, to(peer, objects=("seg", "labelmap")), "both kinds")
        wait_for(lambda: service.journal.deliveries.counts() == {("archive", "done"): 2})
        assert len(peer.arrived) == 1


def test_a_label_map_that_is_taken_goes_as_it_is(running, tmp_path):
    with archive() as peer:
        service = process(running, tmp_path, to(peer, objects=("labelmap",)), "label maps")
        wait_for(lambda: service.journal.deliveries.counts() == {("archive", "done"): 1})
        assert peer.classes == [LABEL_MAP]


def test_a_label_map_that_a_web_server_refuses(running, tmp_path):
    with web_server(lambda number: (409, FAILURE) if number == 0 else (200, b"{}")) as server:
        service = process(running, tmp_path, web(server, objects=("labelmap",)), "web, no label maps")
        wait_for(lambda: service.journal.deliveries.counts() == {("web", "done"): 1})
        assert (server.asked, server.taken) == (2, 1)


def test_orthanc_that_knows_no_label_maps(running, tmp_path, tmp_path_factory):
    if PROGRAM is None:
        pytest.skip(WHY_NOT)
    strict = Orthanc(tmp_path_factory.mktemp("strict"), UnknownSopClassAccepted=False).start()
    try:
        study = ct_study("strict Orthanc")
        service = running(config(tmp_path, by_store(strict, objects=("labelmap", "sr", "pm"))))
        send(study, service.listener.port)
        wait_for(lambda: service.journal.deliveries.counts() == {("pacs", "done"): 3})
        assert len(strict.instances_by_modality(study[0].StudyInstanceUID)["SEG"]) == 1
        assert running.events("fell-back")
    finally:
        strict.stop()


def test_orthanc_away_for_a_while(running, tmp_path, tmp_path_factory):
    if PROGRAM is None:
        pytest.skip(WHY_NOT)
    away = Orthanc(tmp_path_factory.mktemp("away"), StableAge=60)
    study = ct_study("Orthanc away")
    service = running(config(tmp_path, by_store(away), by_stow(away)))
    send(study, service.listener.port)
    wait_for(lambda: len(running.events("not-delivered")) >= 4)
    away.start()
    try:
        wait_for(lambda: service.journal.deliveries.counts() == {("pacs", "done"): 4, ("web", "done"): 4})
        assert sum(map(len, away.instances_by_modality(study[0].StudyInstanceUID).values())) == 4
    finally:
        away.stop(kill=True)


def test_refused_for_good_becomes_a_dead_letter_and_can_be_tried_again(running, tmp_path):
    verdict = {"status": NEVER}
    with archive(lambda number: verdict["status"]) as peer:
        service = process(running, tmp_path, to(peer, objects=("sr",)), "dead letter")
        wait_for(lambda: service.journal.deliveries.counts() == {("archive", "dead"): 1})
        (letter,) = (tmp_path / "dead").iterdir()
        assert sorted(path.name for path in letter.iterdir()) == ["reason.json", "sr.dcm"]
        assert json.loads((letter / "reason.json").read_text())["reason"] == "the peer answers 0xC000"
        verdict["status"] = 0
        assert service.journal.deliveries.revive() == 1
        wait_for(lambda: service.journal.deliveries.counts() == {("archive", "done"): 1})


def test_given_up_after_days(running, tmp_path):
    with archive(lambda number: LATER) as peer:
        service = process(running, tmp_path, to(peer, objects=("sr",), give_up_after_days=1e-6), "given up")
        wait_for(lambda: service.journal.deliveries.counts() == {("archive", "dead"): 1})
        (reason,) = (tmp_path / "dead").glob("*/reason.json")
        assert "given up after 1e-06 days" in json.loads(reason.read_text())["reason"]


def test_a_result_that_vanished_is_said(running, tmp_path):
    with archive(lambda number: LATER) as peer:
        service = process(running, tmp_path, to(peer, objects=("sr",), longest_pause_s=1.0), "vanished")
        wait_for(lambda: peer.asked)
        (result,) = Path(tmp_path).glob("jobs/*/result/dicom/sr.dcm")
        result.unlink()
        wait_for(lambda: service.journal.deliveries.counts() == {("archive", "dead"): 1})
