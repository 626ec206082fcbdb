"""What is answered to which request, and who may ask for what: the part of the status page that decides.

Nothing here tells of a patient, so reading needs no login; trying again is the only thing that can be asked for.
It takes a request of the page itself: the right Host (a stranger's page that points its own name at this computer
is turned away), the same origin, and a token that only the page knows.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from klip_engine.detection import NOTICE
from klip_engine.pacs.config import Status
from klip_engine.pacs.event_log import Events
from klip_engine.pacs.journal import Journal
from klip_engine.pacs.status.health import Condition, Health, examine, health_document
from klip_engine.pacs.status.metrics import CONTENT_TYPE, render_metrics
from klip_engine.pacs.status.page import POLICY, render_page
from klip_engine.pacs.status.snapshot import Camera, Snapshot, Watched
from klip_engine.version import __version__

_ALWAYS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Request:
    """What was asked; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What is answered."""

    code: HTTPStatus
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, code: HTTPStatus, kind: str, text: str, **further: str) -> Answer:
        """Some text of a content type."""
        return cls(code, {"Content-Type": kind} | _ALWAYS | further, text.encode())

    @classmethod
    def plain(cls, code: HTTPStatus, sentence: str) -> Answer:
        """One sentence."""
        return cls.of(code, "text/plain; charset=utf-8", sentence + "\n")


class Answers:
    """Answers requests; several threads may ask."""

    def __init__(self, config: Status, watched: Watched, journal: Journal, events: Events) -> None:
        self._config, self._watched, self._journal, self._events = config, watched, journal, events
        self._camera = Camera(watched)
        self._token = secrets.token_urlsafe(32)

    def __call__(self, request: Request) -> Answer:
        """The answer."""
        if not self._is_our_name(request.headers.get("host", "")):
            return Answer.plain(
                HTTPStatus.MISDIRECTED_REQUEST,
                "This is not a name of the status page; add it to status.hosts if it should be.",
            )
        path, _, query = request.target.partition("?")
        pages = {"/": lambda: self._page(parse_qs(query)), "/health": self._health, "/metrics": self._metrics}
        if path in pages:
            return pages[path]() if request.method == "GET" else self._not_allowed("GET, HEAD")
        if path == "/retry":
            return self._retry(request) if request.method == "POST" else self._not_allowed("POST")
        return Answer.plain(HTTPStatus.NOT_FOUND, "There is /, /health and /metrics.")

    def _page(self, query: dict[str, list[str]]) -> Answer:
        snapshot = self._camera.take(fresh="retried" in query)
        retried = query.get("retried", [""])[0]
        html = render_page(
            snapshot,
            self._examine(snapshot),
            self._watched,
            token=self._token,
            retried=int(retried) if retried.isdecimal() and len(retried) < 7 else None,
            refresh=query.get("refresh", ["on"])[0] != "off",
        )
        return Answer.of(HTTPStatus.OK, "text/html; charset=utf-8", html)

    def _health(self) -> Answer:
        snapshot = self._camera.take()
        health = self._examine(snapshot)
        code = HTTPStatus.SERVICE_UNAVAILABLE if health.condition is Condition.FAILING else HTTPStatus.OK
        document = health_document(snapshot, health, __version__, NOTICE)
        return Answer.of(code, "application/json", json.dumps(document, indent=2) + "\n")

    def _metrics(self) -> Answer:
        snapshot = self._camera.take()
        text = render_metrics(snapshot, self._examine(snapshot), self._watched.tally)
        return Answer.of(HTTPStatus.OK, CONTENT_TYPE, text)

    def _retry(self, request: Request) -> Answer:
        form = parse_qs(request.body.decode("ascii", "replace"))
        token = form.get("token", [""])[0]
        if not self._is_same_origin(request) or not hmac.compare_digest(token.encode(), self._token.encode()):
            return Answer.plain(
                HTTPStatus.FORBIDDEN, "This did not come from the status page as it is now; open it again."
            )
        jobs, deliveries = self._revive(form.get("what", [""])[0])
        self._events("retry-requested", jobs=jobs, deliveries=deliveries)
        return Answer.of(HTTPStatus.SEE_OTHER, "text/plain", "", Location=f"/?retried={jobs + deliveries}")

    def _revive(self, what: str) -> tuple[int, int]:
        """what: all, job-KEY or delivery-NUMBER. How many jobs and deliveries are tried again."""
        kind, _, which = what.partition("-")
        if kind == "job" and which:
            return self._journal.jobs.revive(which), 0
        if kind == "delivery" and which.isdecimal() and len(which) < 16:
            return 0, self._journal.deliveries.revive(int(which))
        if what == "all":
            return self._journal.jobs.revive(), self._journal.deliveries.revive()
        return 0, 0

    def _examine(self, snapshot: Snapshot) -> Health:
        return examine(snapshot, self._watched.tally, job_limit_s=60 * self._watched.config.engine.time_limit_min)

    def _is_our_name(self, host: str) -> bool:
        """Whether the Host header is an address or a name of ours (RFC 9110 7.2); any port, it may be forwarded."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", self._config.address, *(one.lower() for one in self._config.hosts)):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def _is_same_origin(self, request: Request) -> bool:
        """What browsers say of where a form came from; other programs say nothing, they need the token."""
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return False
        origin = request.headers.get("origin")
        return origin is None or urlsplit(origin).netloc == request.headers.get("host")

    def _not_allowed(self, allowed: str) -> Answer:
        answer = Answer.plain(HTTPStatus.METHOD_NOT_ALLOWED, f"Allowed: {allowed}.")
        return Answer(answer.code, answer.headers | {"Allow": allowed}, answer.body)
