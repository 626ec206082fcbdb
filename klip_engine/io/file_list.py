"""A list of DICOM files in a text file: one path a line, relative to the list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from klip_engine.errors import InputError
from klip_engine.io.dicom_headers import is_dicom

_LIST_LIMIT = 2**26
"""Bytes: more than a hundred thousand long paths."""


def is_file_list(path: Path) -> bool:
    """True for a text file by its name."""
    return path.suffix.lower() == ".txt"


def read_file_list(path: Path) -> list[Path]:
    """The files a list names; empty lines and lines that begin with # are passed over.

    Raises InputError, with the number of the line and never its words, where a file is missing or not DICOM.
    """
    lines = [(number, line.strip()) for number, line in enumerate(_text(path).splitlines(), start=1)]
    named = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not named:
        raise InputError(
            f"{path} names no files; a list has the path of one DICOM file a line, relative to the list"
        )
    return [_checked(path.parent / line, f"line {number} of {path}") for number, line in named]


def checked_files(paths: Sequence[Path]) -> list[Path]:
    """The same for files that a caller names; raises InputError where one is missing or not DICOM."""
    if not paths:
        raise InputError("the list of files is empty; give the DICOM files of a CT series")
    return [_checked(Path(path), str(path)) for path in paths]


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LIST_LIMIT:
            raise InputError(f"{path} is too large for a list of files; name a volume file, a folder or an archive")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its permissions") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text: a list has the path of one DICOM file a line") from error


def _checked(path: Path, where: str) -> Path:
    try:
        exists = path.is_file()
    except (OSError, ValueError):  # a line that no file system takes for a name
        exists = False
    if not exists:
        raise InputError(f"{where} names no file that exists; a list has the path of one DICOM file a line")
    if not is_dicom(path):
        raise InputError(f"{where} names a file that is not DICOM; leave it out of the list")
    return path
