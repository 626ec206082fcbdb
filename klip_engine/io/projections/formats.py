"""The formats of projection data by name. A new one is a file beside this, one to write it, and an entry below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klip_engine.errors import InputError, UsageError
from klip_engine.io.atomic import check_replaceable
from klip_engine.io.projections import (
    ct_pd,
    ct_pd_writing,
    fips_mat,
    fips_mat_writing,
    klip_hdf5,
    klip_hdf5_writing,
    lodopab,
    lodopab_writing,
    rtk,
    rtk_writing,
)
from klip_engine.io.projections.first_look import FirstLook, look
from klip_engine.io.projections.options import ReadOptions
from klip_engine.projections import Projections

Writer = Callable[[Path, Projections, Mapping[str, Any]], tuple[str, ...]]


@dataclass(frozen=True)
class ProjectionFormat:
    """name: as said to the user; short: as typed; recognises: from a first look, without reading the data; read:
    all of it; write: complete or not at all, with the provenance where there is a place for it, returning sentences
    about what is lost (None: reading only); suffixes: of paths that are written so without being told ("": a
    folder); options: those of `ReadOptions` that mean something."""

    name: str
    short: str
    recognises: Callable[[FirstLook], bool]
    read: Callable[[Path, ReadOptions], Projections]
    write: Writer | None = None
    suffixes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


FORMATS: tuple[ProjectionFormat, ...] = (
    ProjectionFormat(
        "klip-projections",
        "klip",
        klip_hdf5.recognises,
        klip_hdf5.read,
        write=klip_hdf5_writing.write,
        suffixes=(".h5", ".hdf5"),
    ),
    ProjectionFormat(
        "DICOM-CT-PD", "ct-pd", ct_pd.recognises, ct_pd.read, write=ct_pd_writing.write, suffixes=("",)
    ),
    ProjectionFormat(
        "FIPS .mat", "fips", fips_mat.recognises, fips_mat.read, write=fips_mat_writing.write, suffixes=(".mat",)
    ),
    ProjectionFormat(
        "LoDoPaB-CT", "lodopab", lodopab.recognises, lodopab.read, write=lodopab_writing.write, options=("item",)
    ),
    ProjectionFormat(
        "RTK geometry",
        "rtk",
        rtk.recognises,
        rtk.read,
        write=rtk_writing.write,
        suffixes=(".xml",),
        options=("stack",),
    ),
)


def find_format(path: Path) -> ProjectionFormat | None:
    """The format of a file or folder of projection data; None for anything else, a CT volume included."""
    seen = look(Path(path))
    return next((known for known in FORMATS if known.recognises(seen)), None)


def read_projections(path: Path, *, item: int | None = None, stack: Path | None = None) -> Projections:
    """Read projection data of any format in `FORMATS`.

    item: of a file with several measurements (LoDoPaB), which, from 0 (the first otherwise); stack: of an RTK
    geometry, the images, where they do not lie beside it under the same name.
    Raises InputError with one sentence that names the file and the cure, UsageError for options of other formats.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no such file or folder: {path}; check the spelling")
    known = find_format(path)
    if known is None:
        names = ", ".join(f.name for f in FORMATS)
        raise InputError(f"{path} is no projection data this program reads ({names}); see docs/projections.md")
    options = ReadOptions(item, stack)
    options.check(f"{path} is {known.name}", known.options)
    try:
        return known.read(path, options)
    except InputError as error:
        if path.name in str(error):
            raise
        raise InputError(f"{path}: {error}") from error  # found where only the scan was known, not its file


def write_projections(
    path: Path,
    projections: Projections,
    format: str | None = None,
    *,
    provenance: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Write projections, complete or not at all, and return sentences about what the format does not keep.

    format: a name or short name of `FORMATS`; None: by the suffix of the path (.h5 and .hdf5 klip-projections, .mat
    FIPS, .xml RTK, none a folder of DICOM-CT-PD). Files are replaced; a folder must be new or empty.
    provenance: plain values for JSON, without patient data.
    Raises UsageError where the format has no words for the scan (the sentence names one that does), for unknown
    formats, and where the path cannot be written; ResourceError on a full disk.
    """
    path = Path(path)
    write = _written(path, format).write
    assert write is not None
    return write(path, projections, provenance or {})


def check_writable(path: Path, format: str | None = None) -> None:
    """Raise UsageError, before anything long begins, where neither path nor `format` names a format to write, and
    where what lies at the path is never replaced: a folder that holds something, a folder in a file's place."""
    path = Path(path)
    known = _written(path, format)
    if "" in known.suffixes:
        check_replaceable(path, None)
    elif path.is_dir():
        raise UsageError(f"{path} is a folder, and {known.name} is a file: name a file")


def _written(path: Path, name: str | None) -> ProjectionFormat:
    written = {known.short: known for known in FORMATS if known.write is not None}
    if name is None:
        suffix = "" if path.is_dir() else path.suffix.lower()
        found = [known for known in written.values() if suffix in known.suffixes]
        cure = f"{path} does not say its format: end its name in .h5, or name one of {', '.join(written)}"
    else:
        found = [known for known in written.values() if name.lower() in (known.short, known.name.lower())]
        cure = f"there is no format '{name}' to write; choose one of {', '.join(written)}"
    if not found:
        raise UsageError(cure)
    return found[0]
