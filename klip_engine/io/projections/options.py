"""What a reader of projection data may be told beyond the path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReadOptions:
    """item: which of several measurements in one file, from 0; stack: images that belong to a geometry file."""

    item: int = 0
    stack: Path | None = None
