"""The HTTP server below the status page: few threads, short patience, small requests.

Whoever connects and says nothing, or says it very slowly, is let go; more than a few at once are turned away.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from klip_engine.errors import UsageError
from klip_engine.pacs.config import Status
from klip_engine.pacs.event_log import Events, Level
from klip_engine.pacs.journal import Journal
from klip_engine.pacs.status.answers import Answer, Answers, Request
from klip_engine.pacs.status.snapshot import Watched

_MOST_CONNECTIONS = 8
_PATIENCE_S = 5.0
_LONGEST_S = 20.0
_LONGEST_BODY = 4096
_BUSY = b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class StatusServer:
    """Runs in threads of its own from `start` to `stop`."""

    name = "status page"

    def __init__(self, config: Status, watched: Watched, journal: Journal, events: Events) -> None:
        self._config, self._events = config, events
        self._answers = Answers(config, watched, journal, events)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; of use where the configuration says 0."""
        assert self._server is not None
        return int(self._server.server_address[1])

    @property
    def is_running(self) -> bool:
        """Whether its thread is alive."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin to listen. Raises UsageError when the address or port cannot be used."""
        address, port = self._config.address, self._config.port
        try:
            self._server = _Server(address, port, self._answers, self._unexpected)
        except OSError as error:
            raise UsageError(
                f"status: cannot listen on {address}, port {port} ({error.strerror}); "
                "choose another status.port, or stop what uses it"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="status", daemon=True)
        self._thread.start()
        self._events("status-page", port=self.port)

    def stop(self) -> None:
        """Stop to listen; answers under way are ended."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = None

    def _unexpected(self, error: BaseException) -> None:
        self._events("part-failed", Level.ERROR, part=self.name, reason=type(error).__name__)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, address: str, port: int, answers: Answers, unexpected: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.answers, self.unexpected = answers, unexpected
        self._since: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of the host's name, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, as long as there are few of them."""
        with self._lock:
            has_room = len(self._since) < _MOST_CONNECTIONS
            if has_room:
                self._since[request] = time.monotonic()
        if has_room:
            super().process_request(request, client_address)
            return
        request.settimeout(1)
        with suppress(OSError):
            request.sendall(_BUSY)
        super().shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """One connection fewer."""
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Let go of connections that take too long as a whole, however busy they look."""
        with self._lock:
            late = [one for one, since in self._since.items() if time.monotonic() - since > _LONGEST_S]
        for one in late:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away is no event; nothing is printed, a traceback may quote what was sent."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "klip-engine", ""
    timeout = _PATIENCE_S

    def do_GET(self) -> None:
        self._answer(b"")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 5 or int(length) > _LONGEST_BODY:
            self._send(Answer.plain(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large."))
            return
        self._answer(self.rfile.read(int(length)))

    def _answer(self, body: bytes) -> None:
        method = "GET" if self.command == "HEAD" else self.command
        headers = {key.lower(): value for key, value in self.headers.items()}
        try:
            answer = self.server.answers(Request(method, self.path, headers, body))
        except Exception as error:  # the page may fail, the service must not notice
            self.server.unexpected(error)
            answer = Answer.plain(HTTPStatus.INTERNAL_SERVER_ERROR, "The status could not be found out.")
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.code)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no events."""
