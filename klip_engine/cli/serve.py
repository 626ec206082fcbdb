"""`klip-engine serve`: the service beside a PACS."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from klip_engine.cli.running import IsCancelled, run
from klip_engine.console import ProgressStyle, Reporter
from klip_engine.errors import InputError, UsageError
from klip_engine.words import install_extra

if TYPE_CHECKING:
    from klip_engine.pacs.journal import Journal


def serve(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The service's TOML file (docs/service.md).")],
    check: Annotated[
        bool, typer.Option("--check", help="Only test folders, peers, prior and engine; say what is wrong.")
    ] = False,
    retry_dead: Annotated[
        bool, typer.Option("--retry-dead", help="Only let what failed for good be tried again.")
    ] = False,
    find: Annotated[
        str, typer.Option("--find", metavar="NAME", help="Only say which study a name of log or status page is.")
    ] = "",
) -> None:
    """Receive studies, run the detection on them and send the results back, until stopped."""

    def work(reporter: Reporter, cancelled: IsCancelled) -> None:
        if find_spec("pynetdicom") is None or find_spec("dicomweb_client") is None:
            raise UsageError(f"the service needs more packages: {install_extra('pacs')}")
        if check:
            _check(config)
        elif retry_dead:
            _retry_dead(config)
        elif find:
            _find(config, find)
        else:
            _serve(config, cancelled)

    run(work, ProgressStyle.NONE)


def _serve(file: Path, cancelled: IsCancelled) -> None:
    import threading
    import time

    from klip_engine.pacs.config import load_config
    from klip_engine.pacs.event_log import EventLog, Level
    from klip_engine.pacs.log_file import LogFile
    from klip_engine.pacs.service import Service

    config = load_config(file)
    log = config.log
    events = EventLog(LogFile(log.file, log.max_mb << 20, log.keep) if log.file else None)
    threading.excepthook = lambda died: events(  # of pynetdicom, where peers talk nonsense; told without its text
        "thread-died", Level.WARNING, reason=died.exc_type.__name__
    )
    service = Service(config, events)
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
    _, journal = _open_journal(file)
    jobs, deliveries = journal.jobs.revive(), journal.deliveries.revive()
    journal.close()
    print(f"{jobs} jobs and {deliveries} deliveries will be tried again.")


def _find(file: Path, name: str) -> None:
    """Print the StudyInstanceUID: for whoever may read the state folder, and so the images themselves."""
    from klip_engine.pacs.pseudonyms import load_pseudonyms

    state, journal = _open_journal(file)
    pseudonyms = load_pseudonyms(state)
    found = [study.uid for study in journal.studies.last(sys.maxsize) if pseudonyms.short(study.uid) == name]
    journal.close()
    if not found:
        raise UsageError(f"no study is called {name}; give the 12 digits that log or status page show")
    print(found[0])


def _open_journal(file: Path) -> tuple[Path, Journal]:
    """The state folder and its journal; UsageError where the service has never run with this file."""
    from klip_engine.pacs.config import load_config
    from klip_engine.pacs.journal import Journal
    from klip_engine.pacs.journal.journal import JOURNAL_FILE

    state = load_config(file).state
    if not (state / JOURNAL_FILE).is_file():
        raise UsageError(f"there is no journal in {state}; has the service run with this file?")
    return state, Journal(state)
