"""Files that are there completely or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from klip_engine.errors import ResourceError, UsageError


def write_file(path: Path, content: bytes) -> Path:
    """Write a file and the folders above it: to a temporary name beside it, flushed to the disk, then renamed.

    Raises ResourceError on a full disk, UsageError where it cannot be written otherwise.
    """
    with replaced_file(path) as temporary:
        temporary.write_bytes(content)
    return path


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; flushed to the disk and renamed to it when the block ends well.

    Raises as `write_file`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ResourceError(f"the disk is full: {path} was not written") from error
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def writable_folder(folder: Path, cure: str = "name another folder") -> Path:
    """The folder, made if need be; raises UsageError, with the cure, when nothing can be written there.

    Worth asking before anything long begins.
    """
    with _refusal(folder, cure):
        folder.mkdir(parents=True, exist_ok=True)
        _try_to_write_in(folder)
    return folder


def check_writable(folder: Path, cure: str = "name another folder") -> None:
    """As `writable_folder`, but makes nothing: of a folder that is not there yet, where it would be made."""
    with _refusal(folder, cure):
        _try_to_write_in(next(one for one in (folder, *folder.absolute().parents) if one.exists()))


def _try_to_write_in(folder: Path) -> None:
    tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def _refusal(folder: Path, cure: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {cure}") from error


def flush_folder(folder: Path) -> None:
    """Make sure that the names in a folder are on the disk: what was just renamed into it or made in it."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
