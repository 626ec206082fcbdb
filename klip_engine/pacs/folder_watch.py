"""The folder door: files that others put into a folder go to the spool once nobody writes to them any more."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from klip_engine.errors import InputError, KlipError
from klip_engine.files import write_file
from klip_engine.pacs.config import FolderWatch
from klip_engine.pacs.event_log import Events, Level
from klip_engine.pacs.journal import Journal
from klip_engine.pacs.pseudonyms import Pseudonyms
from klip_engine.pacs.spool import Spool
from klip_engine.pacs.watcher import Watcher

_EVERY_S = 1.0
_PART = 1 << 20


class FolderWatcher(Watcher):
    """Looks into one folder, and the folders below, from `start` to `stop`."""

    def __init__(
        self,
        config: FolderWatch,
        spool: Spool,
        journal: Journal,
        pseudonyms: Pseudonyms,
        events: Events,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._spool, self._journal = config, spool, journal
        self._pseudonyms, self._events, self._clock = pseudonyms, events, clock
        self._rejected = config.rejected or config.path / "rejected"
        self._sizes: dict[Path, int] = {}
        super().__init__("folder")

    @property
    def name(self) -> str:
        """For people."""
        return f"watched folder {self._config.path.name}"

    def look(self) -> int:
        """Take every quiet file; returns how many went to the spool."""
        taken = 0
        sizes: dict[Path, int] = {}
        for file in self._files():
            if self._stop.is_set():
                break
            try:
                status = file.lstat()
            except OSError:  # taken away meanwhile
                continue
            sizes[file] = status.st_size
            quiet = self._clock() - max(status.st_mtime, status.st_ctime) >= self._config.quiet_s
            if quiet and self._sizes.get(file) == status.st_size:
                taken += self._take(file, f"{status.st_mtime_ns} {status.st_size}")
        self._sizes = sizes
        return taken

    def _files(self) -> Iterator[Path]:
        """Plain files only: neither links nor hidden ones, nor what was rejected."""
        for parent, folders, names in os.walk(self._config.path):
            here = Path(parent)
            folders[:] = sorted(f for f in folders if not f.startswith(".") and here / f != self._rejected)
            for name in sorted(names):
                file = here / name
                if not name.startswith(".") and file.is_file() and not file.is_symlink():
                    yield file

    def _take(self, file: Path, version: str) -> bool:
        name = f"folder {self._pseudonyms.name(str(file))}"
        if self._config.keep and self._journal.cursor(name) == version:
            return False
        try:
            _, header = self._spool.store(_parts(file), "folder")
        except InputError as error:
            self._reject(file, str(error), name, version)
            return False
        if self._config.keep:
            self._journal.set_cursor(name, version)
        else:
            file.unlink(missing_ok=True)
        self._events("instance-stored", study=self._pseudonyms.short(header.study), peer="folder")
        return True

    def _reject(self, file: Path, reason: str, name: str, version: str) -> None:
        """With `keep` the file stays where it is and is not looked at again; else it is moved aside."""
        self._events("file-rejected", Level.WARNING, reason=reason)
        if self._config.keep:
            self._journal.set_cursor(name, version)
            return
        self._rejected.mkdir(parents=True, exist_ok=True)
        target = self._rejected / f"{secrets.token_hex(4)}-{file.name}"
        shutil.move(file, target)
        write_file(target.with_name(f"{target.name}.reason.txt"), f"{reason}\n".encode())

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except (OSError, KlipError) as error:
                reason = str(error) if isinstance(error, KlipError) else error.strerror
                self._events("watch-failed", Level.ERROR, watch="folder", reason=reason)
                self._stop.wait(10)
            self._stop.wait(_EVERY_S)


def _parts(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while part := stream.read(_PART):
            yield part
