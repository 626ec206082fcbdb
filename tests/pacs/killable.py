"""A service as a process of its own, with the stand-in engine, to be killed: killable.py CONFIG SECONDS."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from klip_engine.pacs.config import load_config
from klip_engine.pacs.event_log import EventLog
from klip_engine.pacs.service import Service


def main(config: Path, seconds: str) -> None:
    stand_in = str(Path(__file__).with_name("stand_in_engine.py"))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    service = Service(
        load_config(config),
        EventLog(),
        command=lambda source, out: [sys.executable, stand_in, str(source), str(out), seconds],
    )
    service.start()
    stop.wait()
    service.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
