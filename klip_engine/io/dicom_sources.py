"""Where the DICOM files of a study are: a folder, a file, a zip archive, a DICOMDIR or a list of files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from klip_engine.errors import InputError
from klip_engine.io.archives import PrivateFolder, Unpacked, is_zip, unpack_dicom
from klip_engine.io.dicom_headers import is_dicom, read_header
from klip_engine.io.dicomdir import DICOMDIR, ListedFile, locate, read_dicomdir
from klip_engine.io.file_list import checked_files, is_file_list, read_file_list


@dataclass(frozen=True)
class DicomFiles:
    """paths: the files, each once; name: what the user calls them; missing: CT images an index lists that are not
    there; folder: the temporary folder the files lie in, None where they lie where the user put them."""

    paths: tuple[Path, ...]
    name: str
    missing: tuple[ListedFile, ...] = ()
    folder: PrivateFolder | None = None
    is_single: bool = field(default=False)

    @contextmanager
    def errors_by_name(self) -> Iterator[None]:
        """Errors about unpacked files name the archive instead of the temporary folder."""
        try:
            yield
        except InputError as error:
            if self.folder is None or str(self.folder.path) not in str(error):
                raise
            inside = str(self.folder.path / Path(self.name).name)
            raise InputError(str(error).replace(inside, self.name)) from error


def is_dicom_source(path: Path) -> bool:
    """True for a folder, a zip archive, a list of files and a DICOM file."""
    return path.is_dir() or is_file_list(path) or is_zip(path) or is_dicom(path)


def find_dicom(source: Path | Sequence[Path]) -> DicomFiles:
    """The DICOM files behind what the user names; no header is looked into but that of a DICOMDIR.

    Raises InputError where there are none, or where an archive, an index or a list cannot be used.
    """
    if not isinstance(source, Path):
        paths = checked_files(source)
        return DicomFiles(_once(paths), f"the list of {len(paths)} files")
    if source.is_dir():
        return _in_folder(source)
    if is_zip(source):
        return _in_archive(source)
    if is_file_list(source):
        return DicomFiles(_once(read_file_list(source)), str(source))
    if read_header(source).is_directory:
        return _behind_index(source)
    return DicomFiles((source,), str(source), is_single=True)


def _in_folder(folder: Path) -> DicomFiles:
    """Every DICOM file below a folder, in a fixed order; hidden files are skipped."""
    paths = []
    found = 0
    for parent, folders, names in os.walk(folder):
        folders.sort()
        found += len(names)
        paths += [Path(parent, name) for name in sorted(names) if not name.startswith(".")]
    if not found:
        raise InputError(f"the folder {folder} is empty; give a folder with the DICOM files of a CT series")
    dicom = [p for p in paths if p.is_file() and is_dicom(p)]
    if not dicom:
        raise InputError(
            f"the folder {folder} holds no DICOM files; give the folder of a CT series, "
            "or name the volume file (NRRD, NIfTI, MHA) itself"
        )
    missing: list[ListedFile] = []
    for index in (p for p in dicom if p.parent == folder and p.name.lower() == DICOMDIR):
        missing += _missing(read_dicomdir(index), lambda listed: locate(listed, folder))
    return DicomFiles(tuple(dicom), str(folder), tuple(missing))


def _in_archive(path: Path) -> DicomFiles:
    unpacked = unpack_dicom(path)
    missing: list[ListedFile] = []
    found = DicomFiles(tuple(unpacked.files.values()), str(path), folder=unpacked.folder)
    with found.errors_by_name():
        for name, index in unpacked.files.items():
            if name.name.lower() == DICOMDIR:
                missing += _missing(read_dicomdir(index), _locator(unpacked, name.parent))
    return DicomFiles(found.paths, found.name, tuple(missing), found.folder)


def _locator(unpacked: Unpacked, folder: PurePosixPath) -> Callable[[ListedFile], Path | None]:
    """Finds listed files among the entries of an archive below `folder`, whatever the case of their names."""
    by_name = {str(name).lower(): path for name, path in unpacked.files.items()}
    return lambda listed: by_name.get(str(folder.joinpath(*listed.parts)).lower())


def _behind_index(index: Path) -> DicomFiles:
    """The files a DICOMDIR lists, and no others."""
    listed = read_dicomdir(index)
    if not listed:
        raise InputError(f"{index} is a DICOM directory index without images; give the folder it lies in")
    places = {one: locate(one, index.parent) for one in listed}
    missing = _missing(listed, places.__getitem__)
    paths = [place for place in places.values() if place is not None and is_dicom(place)]
    if not paths:
        raise InputError(
            f"none of the {len(listed)} files that {index} lists is there; copy the whole disc, "
            "or give the folder of the CT series"
        )
    return DicomFiles(_once(paths), str(index), tuple(missing))


def _missing(listed: Sequence[ListedFile], find: Callable[[ListedFile], Path | None]) -> list[ListedFile]:
    return [one for one in listed if one.is_ct and find(one) is None]


def _once(paths: Sequence[Path]) -> tuple[Path, ...]:
    """The files in their order, one named twice only once."""
    return tuple({path.resolve(): path for path in paths}.values())
