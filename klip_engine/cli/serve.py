"""`klip-engine serve`: the service beside a PACS."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from klip_engine.cli.running import IsCancelled, run
from klip_engine.console import ProgressStyle, Reporter
from klip_engine.errors import InputError, UsageError


def serve(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The service's TOML file (docs/service.md).")],
    check: Annotated[
        bool, typer.Option("--check", help="Only test folders, peers, prior and engine; say what is wrong.")
    ] = False,
    retry_dead: Annotated[
        bool, typer.Option("--retry-dead", help="Only let what failed for good be tried again.")
    ] = False,
) -> None:
    """Receive studies, run the detection on them and send the results back, until stopped."""

    def work(reporter: Reporter, cancelled: IsCancelled) -> None:
        if find_spec("pynetdicom") is None or find_spec("dicomweb_client") is None:
            raise UsageError("the service needs more packages: pip install 'klip-engine[pacs]'")
        if check:
            _check(config)
        elif retry_dead:
            _retry_dead(config)
        else:
            _serve(config, cancelled)

    run(work, ProgressStyle.NONE)


def _serve(file: Path, cancelled: IsCancelled) -> None:
    import threading
    import time

    from klip_engine.pacs.config import load_config
    from klip_engine.pacs.event_log import EventLog, Level
    from klip_engine.pacs.service import Service

    events = EventLog()
    threading.excepthook = lambda died: events(  # of pynetdicom, where peers talk nonsense; told without its text
        "thread-died", Level.WARNING, reason=died.exc_type.__name__
    )
    service = Service(load_config(file), events)
    try:
        service.start()
        while not cancelled():
            time.sleep(0.2)
    finally:
        service.stop()


def _check(file: Path) -> None:
    from klip_engine.detection import NOTICE
    from klip_engine.pacs.check import check_service
    from klip_engine.pacs.config import load_config

    failed = 0
    for finding in check_service(load_config(file)):
        failed += not finding.is_well
        print(f"{'ok    ' if finding.is_well else 'FAILED'}  {finding.what}", flush=True)
        if finding.cure:
            print(f"        {finding.cure}", flush=True)
    print(NOTICE)
    if failed:
        raise InputError(f"{failed} of the checks failed; mend what is said above and check again")


def _retry_dead(file: Path) -> None:
    from klip_engine.pacs.config import load_config
    from klip_engine.pacs.journal import Journal
    from klip_engine.pacs.journal.journal import JOURNAL_FILE

    state = load_config(file).state
    if not (state / JOURNAL_FILE).is_file():
        raise UsageError(f"there is no journal in {state}; has the service run with this file?")
    journal = Journal(state)
    jobs, deliveries = journal.jobs.revive(), journal.deliveries.revive()
    journal.close()
    print(f"{jobs} jobs and {deliveries} deliveries will be tried again.")
