"""What a DICOMDIR lists (PS3.3 F.3, PS3.10 8), and where those files are: inside its folder, nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from klip_engine.errors import InputError
from klip_engine.io.bounded_file import BoundedFile
from klip_engine.io.dicom_headers import CT_CLASSES, parsing

DICOMDIR = "dicomdir"
"""The name of the index in a folder, in small letters: file systems change the case."""
_RECORD_LIMIT = 200_000


@dataclass(frozen=True)
class ListedFile:
    """A file an index refers to. series: its SeriesInstanceUID, empty where the index does not say; parts: the
    components of its ReferencedFileID (PS3.10 8.2), below the folder of the index."""

    series: str
    sop_class: str
    parts: tuple[str, ...]

    @property
    def is_ct(self) -> bool:
        """True for CT images."""
        return self.sop_class in CT_CLASSES


def read_dicomdir(path: Path) -> list[ListedFile]:
    """The files a DICOMDIR lists, in its order.

    Raises InputError when it is damaged or refers to a place outside its folder.
    """
    with parsing(path):
        with BoundedFile(path) as stream:
            dataset = pydicom.dcmread(stream, force=True)
        records = list(dataset.get("DirectoryRecordSequence") or [])
        series = _series_of(records)
        return [_listed(record, series[id(record)], path) for record in records if record.get("ReferencedFileID")]


def locate(listed: ListedFile, folder: Path) -> Path | None:
    """The file on the disk below `folder`, whatever the case of its name; None where it is missing.

    A link that leads out of the folder counts as missing.
    """
    place = folder
    for part in listed.parts:
        exact = place / part
        place = exact if exact.exists() else next(_same_name(place, part), exact)
    inside = place.resolve().is_relative_to(folder.resolve())
    return place if inside and place.is_file() else None


def _listed(record: Dataset, series: str, path: Path) -> ListedFile:
    value = record.ReferencedFileID
    parts = [value] if isinstance(value, str) else [str(part) for part in value]
    parts = [part for text in parts for part in text.replace("\\", "/").split("/")]
    if any(part in ("", ".", "..") or ":" in part or "\0" in part for part in parts):
        raise InputError(f"{path} refers to files outside its folder; give the folder of the CT series itself")
    return ListedFile(series, str(record.get("ReferencedSOPClassUIDInFile") or ""), tuple(parts))


def _series_of(records: list[Dataset]) -> dict[int, str]:
    """The SeriesInstanceUID above each record. Records are linked by their offsets in the file, in any order."""
    by_offset = {int(record.seq_item_tell): record for record in records if hasattr(record, "seq_item_tell")}
    found = {id(record): "" for record in records}
    for record in records[:_RECORD_LIMIT]:
        if record.get("DirectoryRecordType") == "SERIES":
            for image in _below(record, by_offset):
                found[id(image)] = str(record.get("SeriesInstanceUID") or "")
    return found


def _below(record: Dataset, by_offset: dict[int, Dataset]) -> Iterator[Dataset]:
    """The records one level below a record."""
    seen: set[int] = set()
    offset = int(record.get("OffsetOfReferencedLowerLevelDirectoryEntity") or 0)
    while offset in by_offset and offset not in seen:
        seen.add(offset)
        yield by_offset[offset]
        offset = int(by_offset[offset].get("OffsetOfTheNextDirectoryRecord") or 0)


def _same_name(folder: Path, name: str) -> Iterator[Path]:
    """Entries of a folder that are this name on a CD: other case, version number, final dot."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for found in sorted(names):
        if found.lower().split(";")[0].rstrip(".") == name.lower():
            yield folder / found
