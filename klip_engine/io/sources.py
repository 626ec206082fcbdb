"""Healthy scans a user names: files, DICOM folders or a table; whose patient each is, which slices are healthy."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klip_engine.errors import InputError, UsageError
from klip_engine.working_grid import WorkingVolume


@dataclass(frozen=True)
class Source:
    """One CT to learn from: a file or DICOM folder, whose patient it is, and which slices are healthy."""

    path: Path
    patient: str
    slices: tuple[tuple[int, int], ...] | None = None
    """Ranges first..last (inclusive) of source slices; None means all."""


_RANGE = re.compile(r"^(\d+)\s*-\s*(\d+)$")


def read_manifest(path: Path) -> list[Source]:
    """Sources from a CSV table with columns `file` (relative to it), optional `patient` and `slices`.

    `slices` is "all" (or empty), or ranges such as "0-28, 46-86", both ends included.
    Raises InputError naming the line where the table cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the table {path}: {error}") from error
    sources = []
    for line, row in enumerate(rows, start=2):
        if not row.get("file"):
            raise InputError(f"{path}, line {line}: the column 'file' is missing or empty")
        slices = _ranges(row.get("slices") or "", f"{path}, line {line}")
        file = path.parent / row["file"]
        sources.append(Source(file, row.get("patient") or scan_name(file), slices))
    return sources


def find_sources(paths: Iterable[Path], exclude: Sequence[str] = ()) -> list[Source]:
    """Sources from what the user names: a table (.csv), volume files, or folders holding one DICOM series each.

    Outside a table a scan's patient is named by its file or folder, with the folder above where two share a name.
    Raises UsageError when a scan is named twice, when a patient to leave out is not there (a misspelt name would
    be trained on), and when nothing is left.
    """
    found: list[Source] = []
    paths = list(paths)
    direct = [path for path in paths if path.suffix.lower() != ".csv"]
    for path in paths:
        found += [Source(path, _patient(path, direct))] if path in direct else read_manifest(path)
    places = [source.path.resolve() for source in found]
    twice = [source.path.name for source, place in zip(found, places, strict=True) if places.count(place) > 1]
    if twice:
        raise UsageError(f"a scan is named twice: {twice[0]}")
    unknown = set(exclude) - {source.patient for source in found}
    if unknown:
        raise UsageError(f"no such patient to leave out: {', '.join(sorted(unknown))}")
    sources = [source for source in found if source.patient not in exclude]
    if not sources:
        raise UsageError("no healthy data: name volume files, DICOM folders or a table (.csv)")
    return sources


def scan_name(path: Path) -> str:
    """The name of a file without the endings of volume files, or of a folder."""
    name = path.resolve().name
    for ending in (".nii.gz", ".seg.nrrd", ".nrrd", ".nhdr", ".nii", ".mha", ".mhd", ".dcm"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def _patient(path: Path, direct: Sequence[Path]) -> str:
    """Scans outside a table that only share the name of their file or folder belong to different patients."""
    name = scan_name(path)
    if [scan_name(other) for other in direct].count(name) > 1:
        return f"{path.resolve().parent.name}/{name}"
    return name


def healthy_slices(source: Source, working: WorkingVolume, most: int | None = None) -> npt.NDArray[np.intp]:
    """Indices [n], rising, of the working slices that show a body and have only healthy source slices behind them.

    most: at most so many, evenly chosen. Raises InputError when ranges are given for a scan that is not axial.
    """
    usable = working.body.any(axis=(1, 2))
    if source.slices is not None:
        if working.source_slices is None:
            raise InputError(
                f"{source.path}: slice ranges need axial slices; leave them out or resample the volume"
            )
        inside = [
            any(a <= first and last - 1 <= b for a, b in source.slices) for first, last in working.source_slices
        ]
        usable = usable & np.array(inside)
    found = np.flatnonzero(usable)
    count = len(found) if most is None else min(most, len(found))
    return found[np.linspace(0, len(found) - 1, count).round().astype(int)]


def healthy_runs(source: Source, working: WorkingVolume, most: int, length: int) -> list[npt.NDArray[np.intp]]:
    """Runs of `length` consecutive healthy working slices, evenly spread, that do not overlap and hold at most
    `most` slices in all; where so many in a row are nowhere healthy, shorter runs."""
    found = healthy_slices(source, working)
    for wanted in range(min(length, most), 0, -1):
        runs = [run for row in _rows(found) for run in _cut(row, wanted)]
        if runs:
            count = min(most // wanted, len(runs))
            middles = (np.arange(count) + 0.5) / count * len(runs)  # the ends of a scan are unlike the rest
            return [runs[int(middle)] for middle in middles]
    return []


def _rows(slices: npt.NDArray[np.intp]) -> list[npt.NDArray[np.intp]]:
    """Consecutive ones together."""
    return np.split(slices, np.flatnonzero(np.diff(slices) > 1) + 1)


def _cut(row: npt.NDArray[np.intp], length: int) -> list[npt.NDArray[np.intp]]:
    """Pieces of that length, one after another, from the middle of the row."""
    first = len(row) % length // 2
    return [row[start : start + length] for start in range(first, len(row) - length + 1, length)]


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
