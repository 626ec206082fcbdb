"""The spool: every received instance as a file, on the disk and in the journal before anybody is told so.

STATE/incoming/RANDOM.part          being received; swept at the start of the service
STATE/studies/STUDY/SERIES/INSTANCE.dcm    complete; the names are pseudonyms
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path

from klip_engine.errors import InputError, ResourceError
from klip_engine.files import flush_folder, writable_folder
from klip_engine.pacs.instance_header import InstanceHeader, read_instance_header
from klip_engine.pacs.journal import Instance, Journal, Study
from klip_engine.pacs.pseudonyms import Pseudonyms

Buffer = bytes | bytearray | memoryview


class Stored(Enum):
    """What became of an instance; after each of these it is safe to say that it was received."""

    NEW = "new"
    AGAIN = "again"
    """The same instance with the same contents was there."""
    KEPT_FIRST = "kept first"
    """The same UID with other contents was there; the first stays."""


class MismatchError(InputError):
    """A data set is not the instance it was announced to be."""


class Spool:
    """Takes instances in. Several threads may store at once."""

    def __init__(
        self,
        state: Path,
        journal: Journal,
        pseudonyms: Pseudonyms,
        *,
        free_disk_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._incoming = writable_folder(state / "incoming")
        self._studies = writable_folder(state / "studies")
        self._journal, self._pseudonyms = journal, pseudonyms
        self._free_disk_bytes, self._clock = free_disk_bytes, clock
        self._lock = threading.Lock()

    def store(
        self, file: Iterable[Buffer], door: str, *, expected: str | None = None
    ) -> tuple[Stored, InstanceHeader]:
        """Take one DICOM file (PS3.10), given in parts; on return it is on the disk and in the journal.

        expected: the SOP Instance UID that was announced. Raises InputError where the file cannot be used
        (MismatchError where it is another instance), ResourceError where the disk is (nearly) full: then nothing
        of it is kept.
        """
        partial = self._incoming / f"{secrets.token_hex(16)}.part"
        try:
            try:
                size = self._write(partial, file)
                header = read_instance_header(partial)
                if expected is not None and header.instance != expected:
                    raise MismatchError("the data set is another instance than was announced")
                return self._keep(partial, header, size, door), header
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ResourceError("the disk of the spool is full; free some space") from error
            raise

    def room(self, size: int = 0) -> None:
        """Raise ResourceError where storing `size` bytes would leave less free than is to stay free."""
        if shutil.disk_usage(self._incoming).free - size < self._free_disk_bytes:
            raise ResourceError("the disk of the spool is nearly full; free some space or lower free_disk_mb")

    def file(self, instance: Instance) -> Path:
        """Where an instance lies."""
        name = self._pseudonyms.name
        return self._studies / name(instance.study) / name(instance.series) / f"{name(instance.uid)}.dcm"

    def remove_study(self, study: Study) -> bool:
        """Remove the images of a study, said to the journal first; False where it has changed meanwhile."""
        with self._lock:
            if not self._journal.studies.removed(study, self._clock()):
                return False
            shutil.rmtree(self._studies / self._pseudonyms.name(study.uid), ignore_errors=True)
            return True

    def recover(self) -> int:
        """At the start of the service: remove what was never complete, adopt what was complete but not journaled.

        Neither was acknowledged to its sender. Returns how many were adopted.
        """
        for partial in self._incoming.glob("*.part"):
            partial.unlink()
        adopted = 0
        for file in sorted(self._studies.glob("*/*/*.dcm")):
            try:
                header = read_instance_header(file)
            except InputError:
                continue
            if self._journal.studies.was_removed(header.instance):
                file.unlink()
            elif self._journal.studies.instance(header.instance) is None:
                self._record(file, header, file.stat().st_size, "recovered")
                adopted += 1
        return adopted

    def _write(self, partial: Path, parts: Iterable[Buffer]) -> int:
        size = 0
        with partial.open("xb") as stream:
            os.chmod(partial, 0o600)
            for part in parts:
                size += len(part)
                self.room(len(part))
                stream.write(part)
            stream.flush()
            os.fsync(stream.fileno())
        return size

    def _keep(self, partial: Path, header: InstanceHeader, size: int, door: str) -> Stored:
        with self._lock:  # one at a time, so that of two with the same UID the journal and the folder keep one
            there = self._journal.studies.instance(header.instance)
            if there is not None and self.file(there).exists():
                self._journal.studies.touch(there.study, self._clock())
                same = (there.study, there.series, there.sha256) == (header.study, header.series, _digest(partial))
                return Stored.AGAIN if same else Stored.KEPT_FIRST
            name = self._pseudonyms.name
            folder = self._studies / name(header.study) / name(header.series)
            _make_folder(folder, self._studies)
            final = folder / f"{name(header.instance)}.dcm"
            os.replace(partial, final)
            flush_folder(folder)
            self._record(final, header, size, door)
            return Stored.NEW

    def _record(self, final: Path, header: InstanceHeader, size: int, door: str) -> None:
        digest = _digest(final)
        instance = Instance(header.instance, header.series, header.study, digest, size, door)
        self._journal.studies.record(instance, self._clock())


def _digest(file: Path) -> str:
    """SHA-256 of the data set, without the file meta information that every writer words in its own way."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        stream.seek(_data_set_offset(stream.read(144)))
        while part := stream.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _data_set_offset(start: bytes) -> int:
    """Behind the File Meta Information Group Length (0002,0000) and what it counts (PS3.10 7.1)."""
    has_length = start[128:132] == b"DICM" and start[132:138] == b"\x02\x00\x00\x00UL"
    return 144 + int.from_bytes(start[140:144], "little") if has_length and len(start) == 144 else 0


def _make_folder(folder: Path, root: Path) -> None:
    """The folder with its parents below the root, each made to last."""
    if folder == root or folder.is_dir():
        return
    _make_folder(folder.parent, root)
    folder.mkdir(mode=0o700, exist_ok=True)
    flush_folder(folder.parent)
