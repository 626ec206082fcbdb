"""The formats of projection data by name. A new one is a file beside this and a line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from klip_engine.errors import InputError
from klip_engine.io.projections import ct_pd, fips_mat, klip_hdf5, lodopab, rtk
from klip_engine.io.projections.first_look import FirstLook, look
from klip_engine.io.projections.options import ReadOptions
from klip_engine.projections import Projections


@dataclass(frozen=True)
class ProjectionFormat:
    """name: as said to the user; recognises: from a first look, without reading the data; read: all of it."""

    name: str
    recognises: Callable[[FirstLook], bool]
    read: Callable[[Path, ReadOptions], Projections]


FORMATS: tuple[ProjectionFormat, ...] = (
    ProjectionFormat("klip-projections", klip_hdf5.recognises, klip_hdf5.read),
    ProjectionFormat("DICOM-CT-PD", ct_pd.recognises, ct_pd.read),
    ProjectionFormat("FIPS .mat", fips_mat.recognises, fips_mat.read),
    ProjectionFormat("LoDoPaB-CT", lodopab.recognises, lodopab.read),
    ProjectionFormat("RTK geometry", rtk.recognises, rtk.read),
)


def find_format(path: Path) -> ProjectionFormat | None:
    """The format of a file or folder of projection data; None for anything else, a CT volume included."""
    seen = look(Path(path))
    return next((known for known in FORMATS if known.recognises(seen)), None)


def read_projections(path: Path, *, item: int = 0, stack: Path | None = None) -> Projections:
    """Read projection data of any format in `FORMATS`.

    item: of a file with several measurements (LoDoPaB), which, from 0; stack: of an RTK geometry, the images,
    where they do not lie beside it under the same name.
    Raises InputError with one sentence that names the file and the cure.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no such file or folder: {path}; check the spelling")
    known = find_format(path)
    if known is None:
        names = ", ".join(f.name for f in FORMATS)
        raise InputError(f"{path} is no projection data this program reads ({names}); see docs/projections.md")
    try:
        return known.read(path, ReadOptions(item, stack))
    except InputError as error:
        if path.name in str(error):
            raise
        raise InputError(f"{path}: {error}") from error  # found where only the scan was known, not its file
