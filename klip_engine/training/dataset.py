"""Training slices: CT files brought onto a working grid, healthy ranges only, patient by patient."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from klip_engine.errors import InputError, UsageError
from klip_engine.io import read_ct
from klip_engine.volume import WorkingGrid, to_working_grid


@dataclass(frozen=True)
class Source:
    """One CT to learn from: a file or DICOM folder, whose patient it is, and which slices are healthy."""

    path: Path
    patient: str
    slices: tuple[tuple[int, int], ...] | None = None
    """Ranges first..last (inclusive) of source slices; None means all."""


@dataclass(frozen=True)
class SliceSet:
    """Slices for training: hu [n, 1, h, w] int16 and body [n, 1, h, w] bool on `grid`, and their patients."""

    hu: torch.Tensor
    body: torch.Tensor
    patients: tuple[str, ...]
    grid: WorkingGrid

    def __len__(self) -> int:
        return len(self.patients)


_RANGE = re.compile(r"^(\d+)\s*-\s*(\d+)$")


def read_manifest(path: Path) -> list[Source]:
    """Sources from a CSV table with columns `file` (relative to it), optional `patient` and `slices`.

    `slices` is "all" (or empty), or ranges such as "0-28, 46-86", both ends included.
    Raises InputError naming the line where the table cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the table {path}: {error}") from error
    sources = []
    for line, row in enumerate(rows, start=2):
        if not row.get("file"):
            raise InputError(f"{path}, line {line}: the column 'file' is missing or empty")
        slices = _ranges(row.get("slices") or "", f"{path}, line {line}")
        sources.append(Source(path.parent / row["file"], row.get("patient") or row["file"], slices))
    return sources


def find_sources(paths: Iterable[Path], exclude: Sequence[str] = ()) -> list[Source]:
    """Sources from what the user names: a table (.csv), volume files, or folders holding one DICOM series each.

    Raises UsageError when a patient to leave out is not there (a misspelt name would be trained on), and when
    nothing is left.
    """
    found: list[Source] = []
    for path in paths:
        found += read_manifest(path) if path.suffix.lower() == ".csv" else [Source(path, path.stem)]
    unknown = set(exclude) - {source.patient for source in found}
    if unknown:
        raise UsageError(f"no such patient to leave out: {', '.join(sorted(unknown))}")
    sources = [source for source in found if source.patient not in exclude]
    if not sources:
        raise UsageError("no training data: name volume files, DICOM folders or a table (.csv)")
    return sources


def load_slices(
    sources: Sequence[Source],
    grid: WorkingGrid,
    factor: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> SliceSet:
    """Read every source and bring its healthy slices onto `grid` refined by `factor` (see `augment`).

    Working slices are taken only where all source slices behind them are inside a healthy range.
    """
    fine = grid.refined(factor)
    hu: list[np.ndarray] = []
    body: list[np.ndarray] = []
    patients: list[str] = []
    for number, source in enumerate(sources):
        working = to_working_grid(read_ct(source.path).volume, fine, mask_table=False)
        keep = _healthy(source, working.source_slices, len(working.hu)) & working.body.any(axis=(1, 2))
        hu.append(working.hu[keep].clip(-1024, 3071).astype(np.int16))
        body.append(working.body[keep])
        patients += [source.patient] * int(keep.sum())
        if progress:
            progress(number + 1, len(sources))
    if not patients:
        raise InputError("the training data hold no healthy slice: check the ranges in the column 'slices'")
    return SliceSet(
        torch.from_numpy(np.concatenate(hu))[:, None],
        torch.from_numpy(np.concatenate(body))[:, None],
        tuple(patients),
        fine,
    )


def _healthy(source: Source, slabs: tuple[tuple[int, int], ...] | None, count: int) -> np.ndarray:
    if source.slices is None:
        return np.ones(count, dtype=bool)
    if slabs is None:
        raise InputError(f"{source.path}: slice ranges need axial slices; leave them out or resample the volume")
    return np.array([any(a <= first and last - 1 <= b for a, b in source.slices) for first, last in slabs])


def _ranges(text: str, where: str) -> tuple[tuple[int, int], ...] | None:
    if text.strip().lower() in {"", "all"}:
        return None
    ranges = []
    for part in re.split(r",|;| and ", text):
        match = _RANGE.match(part.strip())
        if not match or int(match[1]) > int(match[2]):
            raise InputError(f"{where}: '{part.strip()}' is not a range of slices such as 0-28")
        ranges.append((int(match[1]), int(match[2])))
    return tuple(ranges)
