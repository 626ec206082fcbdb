"""The log as a file that never grows without end: at a size it is put aside, and only so many are kept."""

from __future__ import annotations

import os
from pathlib import Path

from klip_engine.errors import UsageError


class LogFile:
    """FILE is the present one, FILE.1 the one before, ... FILE.`keep` the oldest. Takes whole lines, flushed."""

    def __init__(self, file: Path, max_bytes: int, keep: int) -> None:
        """Open or go on with the file. Raises UsageError where it cannot be written."""
        self._file, self._max_bytes, self._keep = file, max_bytes, keep
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise UsageError(
                f"the log {file} cannot be written ({error.strerror}); name another log.file"
            ) from error

    def write(self, line: str) -> None:
        """Add a line; OSError on a full disk."""
        content = line.encode()
        if self._size and self._size + len(content) > self._max_bytes:
            self._put_aside()
        self._stream.write(content)
        self._size += len(content)

    def flush(self) -> None:
        """Let it be seen by others."""
        self._stream.flush()

    def close(self) -> None:
        """Nothing may be written afterwards."""
        self._stream.close()

    def _open(self) -> None:
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._stream = os.fdopen(descriptor, "ab")
        self._size = self._file.stat().st_size

    def _put_aside(self) -> None:
        self._stream.close()
        try:
            for number in range(self._keep, 0, -1):
                source = self._numbered(number - 1)
                if source.exists():
                    os.replace(source, self._numbered(number))
            if not self._keep:
                self._file.unlink()
        finally:  # whatever went wrong, the lines go on
            self._open()

    def _numbered(self, number: int) -> Path:
        return self._file.with_name(f"{self._file.name}.{number}") if number else self._file
