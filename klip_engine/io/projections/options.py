"""What a reader of projection data may be told beyond the path."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from klip_engine.errors import UsageError


@dataclass(frozen=True)
class ReadOptions:
    """item: which of several measurements in one file, from 0 (None: the first); stack: images that belong to a
    geometry file (None: those beside it)."""

    item: int | None = None
    stack: Path | None = None

    def check(self, what: str, meant: Collection[str] = ()) -> None:
        """Raise UsageError for an option that was given and means nothing to `what` ("scan.h5 is ...")."""
        for name, value in vars(self).items():
            if value is not None and name not in meant:
                raise UsageError(f"{what}: there is no {name} to choose; leave the {name} out")
