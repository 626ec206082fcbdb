"""Peers that misbehave: a DICOM archive and a DICOMweb server of our own, with faults on request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pynetdicom import AE, AllStoragePresentationContexts, evt

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"


@dataclass
class Archive:
    """What arrived, in order; `answer(n)` is the status of the n-th C-STORE, None closes the connection."""

    port: int = 0
    answer: Callable[[int], int | None] = lambda number: 0
    asked: int = 0
    arrived: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)


@contextmanager
def archive(
    answer: Callable[[int], int | None] = lambda number: 0, *, label_maps: bool = True
) -> Iterator[Archive]:
    state = Archive(answer=answer)

    def store(event: evt.Event) -> int:
        status = state.answer(state.asked)
        state.asked += 1
        if status is None:
            event.assoc.abort()
            return 0xA700
        if status == 0:
            state.arrived.append(str(event.request.AffectedSOPInstanceUID))
            state.classes.append(str(event.request.AffectedSOPClassUID))
        return status

    entity = AE(ae_title="ARCHIVE")
    for context in AllStoragePresentationContexts:
        if label_maps or context.abstract_syntax != LABEL_MAP:
            entity.add_supported_context(context.abstract_syntax)
    if label_maps:
        entity.add_supported_context(LABEL_MAP)
    entity.add_supported_context("1.2.840.10008.1.1")
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    state.port = server.server_address[1]
    yield state
    server.shutdown()


@dataclass
class WebServer:
    """`answer(n)` is the HTTP status of the n-th POST and its body; None closes the connection."""

    url: str = ""
    asked: int = 0
    taken: int = 0


@contextmanager
def web_server(answer: Callable[[int], tuple[int, bytes] | None]) -> Iterator[WebServer]:
    state = WebServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            said = answer(state.asked)
            state.asked += 1
            if said is None:
                self.connection.close()
                return
            status, body = said
            state.taken += status == 200
            self.send_response(status)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    yield state
    server.shutdown()
    server.server_close()
