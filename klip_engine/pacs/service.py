"""The service: doors, intake, worker and couriers in threads of their own around one journal and one spool."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import IO, Protocol

from klip_engine.errors import UsageError
from klip_engine.files import writable_folder
from klip_engine.pacs.commitment import CommitmentReports, request_commitment
from klip_engine.pacs.config import ServiceConfig
from klip_engine.pacs.dead_letters import DeadLetters
from klip_engine.pacs.deliver import Courier
from klip_engine.pacs.dicomweb_watch import DicomwebWatcher
from klip_engine.pacs.engine_run import EngineCommand, detect_command
from klip_engine.pacs.event_log import Events, Level
from klip_engine.pacs.folder_watch import FolderWatcher
from klip_engine.pacs.intake import Intake
from klip_engine.pacs.journal import Journal
from klip_engine.pacs.listener import Listener
from klip_engine.pacs.pseudonyms import load_pseudonyms
from klip_engine.pacs.retention import Keeper
from klip_engine.pacs.sending import SenderFactory, make_sender
from klip_engine.pacs.spool import Spool
from klip_engine.pacs.worker import Worker

_EVERY_S = 0.2
_SWEEP_EVERY_S = 600.0


class Part(Protocol):
    """What runs beside the service: a watcher, the status page."""

    def start(self) -> None:
        """Begin, in a thread of its own."""

    def stop(self) -> None:
        """End; returns when the thread has."""


class Service:
    """Runs from `start` to `stop`; may be killed at any moment in between and goes on at the next start."""

    def __init__(
        self,
        config: ServiceConfig,
        events: Events,
        *,
        command: EngineCommand | None = None,
        senders: SenderFactory = make_sender,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the state folder and recover what the last run left. `command`, `senders`: for tests.

        Raises UsageError where another service has the folder, InputError where the journal is damaged.
        """
        _silence_libraries()
        self.config, self.events = config, events
        writable_folder(config.state)
        os.chmod(config.state, 0o700)
        self._lock = _own(config)
        self.pseudonyms = load_pseudonyms(config.state)
        self.journal = Journal(config.state)
        self.spool = Spool(
            config.state, self.journal, self.pseudonyms, free_disk_bytes=config.free_disk_mb << 20, clock=clock
        )
        adopted, resumed = self.spool.recover(), self.journal.jobs.recover()
        shared = (config, self.journal, self.spool, self.pseudonyms, events)
        self.intake = Intake(*shared, clock)
        objects = dict.fromkeys([*config.engine.objects, *(o for d in config.destinations for o in d.objects)])
        self.worker = Worker(*shared, command or detect_command(config.engine, list(objects)), clock)
        self.couriers = [
            Courier(
                destination,
                self.journal.deliveries,
                senders(destination),
                self.worker.result,
                DeadLetters(config.state),
                events,
                clock,
                partial(request_commitment, destination) if destination.commitment else None,
            )
            for destination in config.destinations
        ]
        reports = CommitmentReports(config.destinations, self.journal.deliveries, self.worker.result, events, clock)
        self.listener = (
            Listener(config.listener, self.spool, self.pseudonyms, events, reports) if config.listener else None
        )
        self.parts: list[Part] = [self.listener] if self.listener else []
        self.parts += [
            DicomwebWatcher(watch, self.spool, self.journal, self.pseudonyms, events) for watch in config.dicomweb
        ]
        self.parts += [
            FolderWatcher(folder, self.spool, self.journal, self.pseudonyms, events, clock)
            for folder in config.folders
        ]
        self.keeper = Keeper(
            config.retention, self.journal, self.spool, self.worker, self.pseudonyms, events, clock
        )
        self.keeper.recover()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        events("recovered", adopted=adopted, resumed=resumed)

    def start(self) -> None:
        """Open the doors and begin to work."""
        for part in self.parts:
            part.start()
        self._loop("intake", lambda: self.intake.settle_quiet() > 0)
        self._loop("worker", lambda: self.worker.run_next(self._stop))
        for courier in self.couriers:
            self._loop("courier", lambda courier=courier: courier.deliver_due() > 0)  # type: ignore[misc]
        self._loop("retention", self._sweep_now_and_then)
        self.events("started", port=self.listener.port if self.listener else None)

    def stop(self) -> None:
        """Close the doors, stop the run in hand (it is queued again) and end when all threads have."""
        for part in self.parts:
            part.stop()
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.journal.close()
        self._lock.close()
        self.events("stopped")

    def _sweep_now_and_then(self) -> bool:
        self.keeper.sweep()
        self._stop.wait(_SWEEP_EVERY_S)
        return False

    def _loop(self, name: str, work: Callable[[], bool]) -> None:
        """Run `work` until stopped: at once again while there is something to do, else after a while."""

        def run() -> None:
            while not self._stop.is_set():
                try:
                    busy = work()
                except Exception as error:  # a full disk, a bug: the others go on, this one tries again
                    reason = str(error) if isinstance(error, UsageError) else type(error).__name__
                    self.events("part-failed", Level.ERROR, part=name, reason=reason)
                    busy = False
                    self._stop.wait(5)
                if not busy:
                    self._stop.wait(_EVERY_S)

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()


def _silence_libraries() -> None:
    """Warnings and log lines of the DICOM libraries quote headers, which name patients."""
    for name in ("pydicom", "pynetdicom", "dicomweb_client", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"(pydicom|pynetdicom|dicomweb_client)(\.|$)")


def _own(config: ServiceConfig) -> IO[str]:
    """A lock on the state folder that ends with this process."""
    lock = (config.state / "service.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise UsageError(f"a service is running already with the folder {config.state}; stop it first") from error
    return lock
