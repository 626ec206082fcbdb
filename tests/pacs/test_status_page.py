"""The page: what it shows, what it never shows, and who may ask to try again."""

from __future__ import annotations

import re

import pytest

from klip_engine.detection import NOTICE
from klip_engine.pacs.config import Status
from klip_engine.pacs.journal import Journal
from klip_engine.pacs.status.answers import Answers, Request
from tests.pacs.busy_journal import HOST, NOW, STUDIES, busy, get, key


def post(answers: Answers, body: str, **headers: str) -> int:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return answers(Request("POST", "/retry", HOST | told, body.encode())).code


def token(answers: Answers) -> str:
    return re.search(r'name="token" value="([\w-]+)"', get(answers, "/")[1])[1]


def test_page_shows_notice_failures_and_no_identifiers(scene, answers):
    code, html = get(answers, "/")
    assert code == 200
    assert html.count(NOTICE) == 2
    assert "the slices of [UID] are not evenly spaced" in html
    assert scene.watched.pseudonym(STUDIES[3]) in html
    assert "4 of 8 results delivered" in html
    assert not re.search(r"1\.2\.826", html + get(answers, "/metrics")[1] + get(answers, "/health")[1])
    assert "<script" not in html
    assert not re.search(r'(src|href)="(?!/)', html)


def test_what_was_logged_is_text_on_the_page(scene):
    scene.tally.add("instance-refused", NOW, {"peer": "<b>x</b>", "reason": "<script>"}, is_trouble=True)
    html = get(Answers(scene.config.status, scene.watched, scene.journal, lambda *_, **__: None), "/")[1]
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "<b>x" not in html


def test_an_empty_journal_has_a_page(tmp_path):
    scene = busy(tmp_path / "other")
    scene.journal.close()
    (scene.config.state / "journal.sqlite").unlink()
    journal = Journal(scene.config.state)
    code, html = get(Answers(scene.config.status, scene.watched, journal, lambda *_, **__: None), "/")
    assert code == 200
    assert "None has arrived yet." in html


def test_page_renews_itself_unless_told_otherwise(answers):
    assert 'http-equiv="refresh"' in get(answers, "/")[1]
    assert 'http-equiv="refresh"' not in get(answers, "/?refresh=off")[1]


def test_one_job_one_delivery_or_all_are_tried_again(scene, answers):
    dead = scene.journal.deliveries.in_state("dead")
    assert post(answers, f"token={token(answers)}&what=job-{key(3)}") == 303
    assert scene.journal.jobs.get(key(3)).state == "queued"
    assert len(scene.journal.deliveries.in_state("dead")) == 1
    assert post(answers, f"token={token(answers)}&what=delivery-{dead[0].id}") == 303
    assert scene.journal.deliveries.in_state("dead") == []
    scene.journal.deliveries.bury(dead[0], "again", NOW)
    answer = answers(Request("POST", "/retry", HOST, f"token={token(answers)}&what=all".encode()))
    assert (answer.code, answer.headers["Location"]) == (303, "/?retried=1")
    assert "1 dead letter will be tried again." in get(answers, "/?retried=1")[1]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, "what=all"),
        ({}, "token=&what=all"),
        ({}, "token=wrong&what=all"),
        ({}, "token=%FF%FE&what=all"),
        ({"origin": "http://evil.example"}, "token=TOKEN&what=all"),
        ({"origin": "null"}, "token=TOKEN&what=all"),
        ({"sec_fetch_site": "cross-site"}, "token=TOKEN&what=all"),
        ({"sec_fetch_site": "same-site"}, "token=TOKEN&what=all"),
    ],
)
def test_strange_pages_cannot_try_again(scene, answers, headers, body):
    assert post(answers, body.replace("TOKEN", token(answers)), **headers) == 403
    assert scene.journal.jobs.counts()["dead"] == 1


def test_the_pages_own_form_may(answers):
    headers = {"origin": "http://127.0.0.1:8081", "sec_fetch_site": "same-origin"}
    assert post(answers, f"token={token(answers)}&what=all", **headers) == 303


@pytest.mark.parametrize("what", ["", "none", "job-", "job-unknown", "delivery-x", "delivery-99999999999999999999"])
def test_what_is_not_there_is_not_tried_again(scene, answers, what):
    assert post(answers, f"token={token(answers)}&what={what}") == 303
    assert scene.journal.jobs.counts()["dead"] == 1


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8081", "", "127.0.0.1.evil.example", "10.0.0.1", "[", "x]"]
)
def test_other_names_are_turned_away(answers, host):
    for target in ("/", "/health", "/metrics"):
        assert answers(Request("GET", target, {"host": host})).code == 421


@pytest.mark.parametrize("host", ["localhost:8081", "127.0.0.1", "[::1]:8081", "LOCALHOST", "klip.example:443"])
def test_own_names_are_not(scene, host):
    status = Status(port=0, hosts=("KLIP.example",))
    answers = Answers(status, scene.watched, scene.journal, lambda *_, **__: None)
    assert answers(Request("GET", "/health", {"host": host})).code == 200


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        ("POST", "/", 405),
        ("GET", "/retry", 405),
        ("GET", "/../state", 404),
        ("GET", "//x/", 404),
        ("GET", "http://[", 404),
    ],
)
def test_other_requests_are_refused(answers, method, target, code):
    assert answers(Request(method, target, HOST)).code == code
