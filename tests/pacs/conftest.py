"""What the tests of the service share: an Orthanc for the session, a service in this process, ways to send."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from klip_engine.pacs.config import Destination, Listener, Peer, Rules, ServiceConfig
from klip_engine.pacs.event_log import EventLog
from klip_engine.pacs.service import Service
from tests.pacs import orthanc as orthancs

STAND_IN = Path(__file__).with_name("stand_in_engine.py")


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory) -> Iterator[orthancs.Orthanc]:
    if orthancs.PROGRAM is None:
        pytest.skip(orthancs.WHY_NOT)
    one = orthancs.Orthanc(tmp_path_factory.mktemp("orthanc")).start()
    yield one
    one.stop()


def stand_in(seconds: float = 0.0) -> Callable[[Path, Path], list[str]]:
    return lambda source, out: [sys.executable, str(STAND_IN), str(source), str(out), str(seconds)]


def config(state: Path, *destinations: Destination, **further: Any) -> ServiceConfig:
    """A service that listens on a free port and waits a moment for quiet."""
    settings: dict[str, Any] = {
        "listener": Listener(port=0, peers=(Peer("SCANNER"), Peer("OTHER"))),
        "rules": Rules(quiet_s=0.3),
        "free_disk_mb": 1,
    }
    return ServiceConfig(state, destinations, **settings | further)


def by_store(orthanc: orthancs.Orthanc, **further: Any) -> Destination:
    place = {"host": "127.0.0.1", "port": orthanc.dicom_port, "ae_title": "ORTHANC"}
    return Destination("pacs", "dicom", **place | {"longest_pause_s": 0.5} | further)


def by_stow(orthanc: orthancs.Orthanc, **further: Any) -> Destination:
    return Destination("web", "dicomweb", **{"url": orthanc.web, "longest_pause_s": 0.5} | further)


class Running:
    """A service in this process, stopped at the end of the test, with what it logged."""

    def __init__(self) -> None:
        self._log = io.StringIO()
        self.service: Service | None = None

    def __call__(self, settings: ServiceConfig, **further: Any) -> Service:
        self.service = Service(settings, EventLog(self._log), **{"command": stand_in()} | further)
        self.service.start()
        return self.service

    @property
    def log(self) -> str:
        return self._log.getvalue()

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.splitlines()]
        return [line for line in lines if line["event"] == name]

    def stop(self) -> None:
        if self.service is not None:
            self.service.stop()
            self.service = None


@pytest.fixture
def running() -> Iterator[Running]:
    one = Running()
    yield one
    one.stop()
    print(one.log)  # shown by pytest where the test failed


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    pytest.fail("it did not happen in time")
