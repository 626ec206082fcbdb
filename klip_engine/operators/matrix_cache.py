"""One copy of every system matrix in use: building one takes seconds, and it may fill a gigabyte."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from klip_engine.operators.joseph import SystemMatrix


class MatrixCache:
    """Keeps the matrices used last, up to `limit_bytes` in all; safe to share between threads.

    The newest matrix is kept even where it alone passes the limit, so that an operator does not rebuild it in
    every product.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._matrices: OrderedDict[Hashable, SystemMatrix] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, build: Callable[[], SystemMatrix]) -> SystemMatrix:
        """The matrix of `key`, built now if it is not held; other threads wait rather than build it too."""
        with self._lock:
            if key not in self._matrices:
                self._matrices[key] = build()
                while len(self._matrices) > 1 and self._held_bytes() > self.limit_bytes:
                    self._matrices.popitem(last=False)
            self._matrices.move_to_end(key)
            return self._matrices[key]

    def held_bytes(self) -> int:
        """Memory of the matrices held now."""
        with self._lock:
            return self._held_bytes()

    def clear(self) -> None:
        """Let go of every matrix."""
        with self._lock:
            self._matrices.clear()

    def _held_bytes(self) -> int:
        return sum(matrix.nbytes for matrix in self._matrices.values())
