"""A CT series from a folder of DICOM files, or the slices of one file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from klip_engine.errors import InputError, UsageError
from klip_engine.io.dicom_headers import (
    MEDIA_STORAGE_DIRECTORY,
    FileHeader,
    SliceHeader,
    is_dicom,
    read_header,
    slice_headers,
)
from klip_engine.io.dicom_pixels import SliceReader
from klip_engine.io.hounsfield import check_and_clip_hu, check_geometry
from klip_engine.io.loaded import LoadedCT, describe
from klip_engine.io.slice_stack import read_stack, stack_slices
from klip_engine.volume import CTVolume


def read_dicom(path: Path, *, series: str | None = None) -> LoadedCT:
    """Read one CT series in HU from a DICOM file or, recursively, a folder.

    series: SeriesInstanceUID or series number; without it the series with the most slices is read and a
    notice says how many others there are. Localizers and objects that are no CT images are left out with one.
    Raises InputError (see `stack_slices`, `slice_headers` and `SliceReader`) and UsageError when `series` is
    not in the folder.
    """
    files, notices = _ct_files(path)
    chosen, left_out = _choose(_by_series(files), series, path)
    slices, more = _scan_slices(chosen, path)
    name = str(path)
    stack = stack_slices(slices, name)
    check_geometry(stack.geometry, name)
    hu = read_stack(stack, SliceReader())
    check_and_clip_hu(hu, name)
    volume = CTVolume(hu, stack.geometry)
    if path.is_file() and len(slices) == 1:
        more = (*more, "One DICOM file was given, which is one slice; give its folder to read the series.")
    description = describe(volume, "DICOM", len({s.path for s in slices}), series=pseudonym(chosen[0].series))
    frames = tuple(s.frame for s in stack.slices if s.frame is not None)
    return LoadedCT(
        volume,
        description,
        (*notices, *left_out, *more, *stack.notices),
        dicom_files=tuple(s.path for s in stack.slices),
        dicom_frames=frames or None,
    )


def _ct_files(path: Path) -> tuple[list[FileHeader], tuple[str, ...]]:
    """The CT images at a path, and a notice about the DICOM objects that are none."""
    paths = [path] if path.is_file() else _dicom_paths(path)
    headers = [read_header(p) for p in paths]
    headers = [h for h in headers if h.sop_class != MEDIA_STORAGE_DIRECTORY and not _is_directory(h)]
    files = [h for h in headers if h.is_ct]
    others = [h for h in headers if not h.is_ct]
    if not headers:
        raise InputError(f"{path} is a DICOM directory index without images; give the folder it lies in")
    if not files:
        raise _not_ct(others, path)
    if not others:
        return files, ()
    return files, (f"{_count(len(others), 'DICOM object')} that {_are(len(others))} not a CT image left out.",)


def _is_directory(header: FileHeader) -> bool:
    return str(header.dataset.file_meta.get("MediaStorageSOPClassUID", "")) == MEDIA_STORAGE_DIRECTORY


def _dicom_paths(folder: Path) -> list[Path]:
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
    return dicom


def _not_ct(others: Sequence[FileHeader], path: Path) -> InputError:
    images = [h for h in others if h.is_image]
    if not images:
        return InputError(
            f"{path} holds DICOM without images (a dose report or similar); give the folder of a CT series"
        )
    modalities = ", ".join(sorted({h.modality or "none" for h in images}))
    return InputError(
        f"{path} holds no CT images (modality {modalities}); this program reads CT only, give a CT series"
    )


def _by_series(files: Iterable[FileHeader]) -> list[list[FileHeader]]:
    """The files of each series, the longest series first."""
    series: dict[str, list[FileHeader]] = {}
    for file in files:
        series.setdefault(file.series, []).append(file)
    return sorted(series.values(), key=lambda s: (-_slice_count(s), s[0].series))


def _slice_count(files: Iterable[FileHeader]) -> int:
    """Slices without the localizers, so that many scouts never win over a short scan."""
    return sum(0 if _is_localizer(f) else f.frames for f in files)


def _is_localizer(file: FileHeader) -> bool:
    """ImageType value 3 (PS3.3 C.8.2.1.1.1); an enhanced file may mix, its frames tell."""
    image_type = file.dataset.get("ImageType") or []
    return "LOCALIZER" in ([image_type] if isinstance(image_type, str) else image_type)


def _choose(
    found: list[list[FileHeader]], series: str | None, path: Path
) -> tuple[list[FileHeader], tuple[str, ...]]:
    """The series to read, and a notice about those that are not."""
    numbers = ", ".join(sorted({files[0].series_number for files in found}))
    if series is not None:
        matches = [f for f in found if series in (f[0].series, f[0].series_number, pseudonym(f[0].series))]
        if not matches:
            raise UsageError(f"{path} has no CT series {series}; its series numbers are: {numbers}")
        if len(matches) > 1:
            raise UsageError(
                f"{path} has {len(matches)} CT series with number {series}; choose by SeriesInstanceUID"
            )
        return matches[0], ()
    scans = [files for files in found if _slice_count(files)]
    if len(scans) < 2:
        return (scans or found)[0], ()
    chosen = scans[0]
    return chosen, (
        f"There are {len(scans)} CT series; the one with the most slices (series number "
        f"{chosen[0].series_number}) was read, {len(scans) - 1} left out. Series numbers: {numbers}.",
    )


def _scan_slices(files: Sequence[FileHeader], path: Path) -> tuple[list[SliceHeader], tuple[str, ...]]:
    """The slices of a series without its localizers, whose headers need not make sense, and a notice."""
    slices = [s for file in files if not _is_localizer(file) for s in slice_headers(file)]
    kept = [s for s in slices if not s.is_localizer]
    count = len(slices) - len(kept) + sum(file.frames for file in files if _is_localizer(file))
    if not kept:
        raise InputError(f"{path} holds only localizers (scout views), no CT slices; give the scan itself")
    if not count:
        return kept, ()
    return kept, (f"{_count(count, 'localizer')} (scout view) in the series {_are(count)} left out.",)


def pseudonym(uid: str) -> str:
    """Tells two series apart without naming either; as findings.json has it, and as `series` it is understood."""
    return hashlib.sha256(uid.encode()).hexdigest()[:16]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _are(number: int) -> str:
    return "was" if number == 1 else "were"
