"""`klip-engine serve`: the service beside a PACS."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from klip_engine.cli.running import IsCancelled, run
from klip_engine.console import ProgressStyle, Reporter


def serve(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The service's TOML file (docs/service.md).")],
) -> None:
    """Receive studies, run the detection on them and send the results back, until stopped."""

    def work(reporter: Reporter, cancelled: IsCancelled) -> None:
        from klip_engine.pacs.config import load_config
        from klip_engine.pacs.event_log import EventLog
        from klip_engine.pacs.service import Service

        service = Service(load_config(config), EventLog())
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        service.start()
        stop.wait()
        service.stop()

    run(work, ProgressStyle.NONE)
