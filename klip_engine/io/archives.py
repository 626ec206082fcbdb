"""The DICOM files in a zip archive, in a private temporary folder under names of our own.

Names inside an archive are never used as places on the disk, so no entry can lie outside the folder, and as they
often hold patients' names they are not told either: entry N becomes the file `entry-N`.
"""

from __future__ import annotations

import errno
import shutil
import stat
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from klip_engine.errors import InputError, ResourceError
from klip_engine.io.dicom_headers import starts_like_dicom

TOTAL_LIMIT = 2**35
"""Bytes of all entries together: the largest CT studies have a few GiB."""
ENTRY_LIMIT = 100_000
RATIO_LIMIT = 200
"""CT shrinks to a half or a third; archives that shrink more than this and are large were made to fill a disk."""
RATIO_MATTERS = 2**28
_PIECE = 2**20
_ENCRYPTED = 0x1
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EMFILE}


class PrivateFolder:
    """A temporary folder only its owner can open, removed when this object is no longer used, or at exit."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="klip-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True)
class Unpacked:
    """folder: holds the files for as long as it is kept; files: by their names in the archive, in its order."""

    folder: PrivateFolder
    files: dict[PurePosixPath, Path]


def is_zip(path: Path) -> bool:
    """True for a file that is, or by its name should be, a zip archive."""
    if path.suffix.lower() == ".zip":
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its permissions") from error


def unpack_dicom(path: Path) -> Unpacked:
    """Unpack what is DICOM in a zip archive; everything else in it is passed over without touching the disk.

    Raises InputError for an archive that is damaged, has a password, is made to fill the disk or holds no DICOM;
    ResourceError when the temporary folder is too small.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        entries = [(n, e) for n, e in enumerate(archive.infolist(), start=1) if _is_wanted(e)]
        _check_size([entry for _, entry in entries], path)
        folder = PrivateFolder()
        _check_room([entry for _, entry in entries], folder.path, path)
        files = {}
        (folder.path / path.name).mkdir()
        for number, entry in entries:
            target = folder.path / path.name / f"entry-{number}"
            if _copy(archive, entry, target, path):
                files[PurePosixPath(entry.filename)] = target
    if not files:
        raise InputError(f"{path} holds no DICOM files; give an archive of a CT series, or unpack the volume file")
    return Unpacked(folder, files)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Damage becomes InputError; a full disk ResourceError."""
    try:
        yield
    except NotImplementedError as error:
        raise InputError(
            f"{path} is compressed in a way that cannot be read; unpack it and give the folder"
        ) from error
    except PermissionError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its permissions") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, LookupError, RuntimeError) as error:
        raise InputError(f"{path} is a damaged or incomplete zip archive; copy or export it again") from error
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise InputError(f"{path} is a damaged or incomplete zip archive; copy or export it again") from error
        raise ResourceError(
            f"{path} could not be unpacked ({error.strerror}); TMPDIR names the folder it is done in"
        ) from error


def _is_wanted(entry: zipfile.ZipInfo) -> bool:
    """Files that are not hidden: no folders, no links, no resource forks."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    is_hidden = PurePosixPath(entry.filename).name.startswith(".")
    return not (entry.is_dir() or is_hidden) and kind in (0, stat.S_IFREG)


def _check_size(entries: list[zipfile.ZipInfo], path: Path) -> None:
    """zipfile never gives more bytes than an entry announces, so the announced sizes can be trusted."""
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise InputError(f"{path} is protected by a password; unpack it and give the folder")
    total = sum(entry.file_size for entry in entries)
    packed = max(path.stat().st_size, 1)
    if (
        len(entries) > ENTRY_LIMIT
        or total > TOTAL_LIMIT
        or (total > RATIO_MATTERS and total > RATIO_LIMIT * packed)
    ):
        raise InputError(
            f"{path} would unpack to {len(entries)} files of {total / 2**30:.1f} GiB together, more than a CT "
            "study has; unpack what is needed and give its folder"
        )


def _check_room(entries: list[zipfile.ZipInfo], folder: Path, path: Path) -> None:
    total, free = sum(entry.file_size for entry in entries), shutil.disk_usage(folder).free
    if total > free:
        raise ResourceError(
            f"{path} needs {total / 2**30:.1f} GiB to be unpacked and {folder.parent} has {free / 2**30:.1f}; "
            "make room or set TMPDIR to a folder on a larger disk"
        )


def _copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, path: Path) -> bool:
    """Write an entry to the disk if it is DICOM; says whether it is."""
    with archive.open(entry) as stream:
        start = stream.read(132)
        if not starts_like_dicom(start):
            return False
        with target.open("wb") as out:
            out.write(start)
            shutil.copyfileobj(stream, out, _PIECE)
    return True
