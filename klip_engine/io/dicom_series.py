"""A CT volume from DICOM: find the files, choose the series, order its slices, read their pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from klip_engine.errors import InputError
from klip_engine.io.dicom_headers import FileHeader, read_header
from klip_engine.io.dicom_pixels import SliceReader, lossy_notice
from klip_engine.io.dicom_sources import DicomFiles, find_dicom
from klip_engine.io.dicomdir import ListedFile
from klip_engine.io.hounsfield import check_and_clip_hu, check_geometry
from klip_engine.io.loaded import LoadedCT, describe
from klip_engine.io.series_choice import Choice, choose_series
from klip_engine.io.series_facts import Series, series_of
from klip_engine.io.slice_stack import SliceStack, check_size, read_stack
from klip_engine.volume import CTVolume
from klip_engine.words import counted

__all__ = ["Study", "open_study", "read_dicom"]


@dataclass(frozen=True)
class Study:
    """The CT series of what the user named, before any pixels are read."""

    files: DicomFiles
    series: tuple[Series, ...]
    notices: tuple[str, ...]

    def choose(self, wanted: str | None = None) -> Choice:
        """The series to read and why not the others; raises UsageError when `wanted` is not there."""
        return choose_series(self.series, wanted, self.files.name)


def open_study(source: Path | Sequence[Path]) -> Study:
    """Look at the headers behind a folder, a DICOM file, a zip archive, a DICOMDIR or a list of files.

    Raises InputError where there is no CT or a file is damaged.
    """
    files = find_dicom(source)
    with files.errors_by_name():
        headers = [header for header in map(read_header, files.paths) if not header.is_directory]
        ct, notices = _ct_images(headers, files.name)
        ct, copies = _without_copies(ct)
        series = tuple(series_of(ct, files.name))
        return Study(files, series, (*notices, *copies, *_studies_notice(series)))


def read_dicom(source: Path | Sequence[Path] | Study, *, series: str | None = None) -> LoadedCT:
    """Read one CT series in HU from a folder (and those below it), a DICOM file, a zip archive, a DICOMDIR, a list
    of files (.txt) or a sequence of files.

    series: SeriesInstanceUID, series number or the hash that `klip-engine info` shows; without it the rules of
    `series_choice` choose, and a notice says what and why. Localizers and objects that are no CT images are left
    out with one.
    Raises InputError (see `open_study`, `stack_slices`, `slice_headers` and `SliceReader`) and UsageError when
    `series` is not there.
    """
    study = source if isinstance(source, Study) else open_study(source)
    choice = study.choose(series)
    with study.files.errors_by_name():
        missing = _missing_notices(choice.chosen, study.files)
        if choice.chosen.problem is not None:
            raise choice.chosen.problem
        loaded = _read_series(choice.chosen, study.files)
    chosen = (choice.notice,) if choice.others and series is None else ()
    notices = (*study.notices, *missing, *chosen, *loaded.notices)
    return LoadedCT(
        loaded.volume, loaded.description, notices, loaded.dicom_files, loaded.dicom_frames, study.files.folder
    )


def _ct_images(headers: Sequence[FileHeader], name: str) -> tuple[list[FileHeader], tuple[str, ...]]:
    """The CT images among DICOM objects, and a notice about the objects that are none."""
    if not headers:
        raise InputError(f"{name} is a DICOM directory index without images; give the folder it lies in")
    ct = [header for header in headers if header.is_ct]
    if not ct:
        raise _not_ct(headers, name)
    notices = []
    others = len(headers) - len(ct)
    if others == 1:
        notices.append("1 DICOM object that is not a CT image was left out.")
    elif others:
        notices.append(f"{others} DICOM objects that are not CT images were left out.")
    return ct, tuple(notices)


def _studies_notice(series: Sequence[Series]) -> tuple[str, ...]:
    studies = len({one.files[0].study for one in series})
    if studies < 2:
        return ()
    return (f"The CT series come from {studies} studies; only one series of one of them was read.",)


def _not_ct(others: Sequence[FileHeader], name: str) -> InputError:
    images = [header for header in others if header.is_image]
    if not images:
        return InputError(
            f"{name} holds DICOM without images (a dose report or similar); give the folder of a CT series"
        )
    modalities = ", ".join(sorted({_code(header.modality) or "none" for header in images}))
    return InputError(
        f"{name} holds no CT images (modality {modalities}); this program reads CT only, give a CT series"
    )


def _code(modality: str) -> str:
    return "".join(c for c in modality[:16] if c.isalnum())


def _without_copies(files: Sequence[FileHeader]) -> tuple[list[FileHeader], tuple[str, ...]]:
    """Without files that are copies of another, byte for byte. The UID alone is no proof: anonymizers repeat it."""
    by_instance: dict[tuple[str, int], list[FileHeader]] = {}
    for file in files:
        by_instance.setdefault((file.instance, file.bytes), []).append(file)
    kept: dict[object, FileHeader] = {}
    for alike in by_instance.values():
        for file in alike:
            proof = str(file.path) if len(alike) == 1 else hashlib.sha256(file.path.read_bytes()).digest()
            kept.setdefault(proof, file)
    copies = len(files) - len(kept)
    told = "is an exact copy of another and was" if copies == 1 else "are exact copies of others and were"
    notice = (f"{counted(copies, 'file')} {told} left out.",) if copies else ()
    return list(kept.values()), notice


def _missing_notices(chosen: Series, files: DicomFiles) -> tuple[str, ...]:
    """Raise InputError where the index lists images of this series that are not there; say that of the others."""

    def is_of_chosen(listed: ListedFile) -> bool:
        return listed.series in ("", chosen.uid)

    needed = sum(is_of_chosen(listed) for listed in files.missing)
    if needed:
        raise InputError(
            f"{files.name}: {needed} of the images that its DICOMDIR lists for the series are missing; "
            "copy the whole disc or export the series completely"
        )
    if files.missing:
        return (f"{len(files.missing)} CT images of other series that the DICOMDIR lists are missing.",)
    return ()


def _read_series(series: Series, files: DicomFiles) -> LoadedCT:
    stack = series.stack
    assert stack is not None  # a series without one has a problem, which was raised
    name = files.name
    check_geometry(stack.geometry, name)
    check_size(stack, sum(file.bytes for file in series.files), name)
    hu = read_stack(stack, SliceReader())
    check_and_clip_hu(hu, name)
    volume = CTVolume(hu, stack.geometry)
    paths = tuple(one.path for one in stack.slices)
    description = describe(volume, "DICOM", len(set(paths)), series=series.key)
    return LoadedCT(volume, description, _notices(series, files), paths, _frames(stack))


def _notices(series: Series, files: DicomFiles) -> tuple[str, ...]:
    single: tuple[str, ...] = ()
    if files.is_single and series.count == 1:
        single = ("One DICOM file was given, which is one slice; give its folder to read the series.",)
    return (*series.notices, *single, *lossy_notice(series.files))


def _frames(stack: SliceStack) -> tuple[int, ...] | None:
    frames = tuple(one.frame for one in stack.slices if one.frame is not None)
    return frames or None
