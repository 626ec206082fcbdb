"""A file for parsers that believe the lengths in it: Python takes memory for all that is asked of it at once."""

from __future__ import annotations

import io
import os
from pathlib import Path

_SMALL = 2**16


class BoundedFile(io.BufferedReader):
    """An open file that never takes memory for more bytes than are left in it."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._bytes = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes, all that is left for None or -1."""
        if size is not None and size > _SMALL:
            size = max(min(size, self._bytes - self.tell()), 0)
        return super().read(size)
