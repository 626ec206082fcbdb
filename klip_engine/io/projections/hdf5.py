"""HDF5 files that come from anywhere: opened without following links out of them or believing their sizes.

An HDF5 file may point to other files (external and soft links, external storage, virtual data sets) and may declare
arrays that it does not hold. Neither is needed for projections, so neither is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from klip_engine.errors import InputError, UsageError
from klip_engine.words import install_extra

if TYPE_CHECKING:
    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"
LARGEST_BYTES = 32 * 2**30
_LARGEST_EXPANSION = 1100
"""DEFLATE packs at most about 1030 to 1; an array that claims more was never written."""
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file, to be read from with `array`; what h5py raises in the block becomes an InputError."""
    h5 = _library()
    try:
        with h5.File(path, "r") as file:
            yield file
    except _DAMAGE as error:
        raise damaged(path) from error


def damaged(path: Path) -> InputError:
    """The sentence for an HDF5 file that cannot be read to its end."""
    return InputError(f"{path} cannot be read: it is damaged or incomplete (a truncated HDF5 file); copy it again")


def dataset(group: h5py.Group, name: str, path: Path) -> h5py.Dataset | None:
    """The data set of that name, None where there is none.

    Raises InputError for links, virtual and external storage, things that are no array of numbers, and sizes
    that cannot be true; nothing has been allocated by then.
    """
    h5 = _library()
    if not _is_own(group, name, path):
        return None
    found = group[name]
    if not isinstance(found, h5.Dataset) or found.dtype.kind not in "fiu":
        raise InputError(f"/{name} in {path} is no array of numbers; see docs/projections.md for what it must be")
    if found.is_virtual or found.external:
        raise InputError(f"/{name} in {path} keeps its data in other files; write a file that holds all its data")
    stored = found.id.get_storage_size()
    if found.nbytes > LARGEST_BYTES:
        raise InputError(
            f"/{name} in {path} declares {found.nbytes / 2**30:.0f} GiB, more than the {LARGEST_BYTES // 2**30} "
            "GiB this program reads; split the scan"
        )
    if found.nbytes > stored * _LARGEST_EXPANSION:
        raise InputError(
            f"/{name} in {path} declares {found.nbytes} bytes but the file holds {stored} of them; write it again"
        )
    return found


def group_of(file: h5py.Group, name: str, path: Path) -> h5py.Group | None:
    """The group of that name, None where there is none; raises InputError for links and for anything else."""
    if not _is_own(file, name, path):
        return None
    found = file[name]
    if not isinstance(found, _library().Group):
        raise InputError(f"/{name} in {path} is no group; see docs/projections.md for what it must be")
    return found


def array(group: h5py.Group, name: str, path: Path) -> np.ndarray[Any, Any] | None:
    """`dataset`, read."""
    found = dataset(group, name, path)
    return None if found is None else np.asarray(found[()])


def top_level(path: Path) -> tuple[dict[str, tuple[int, ...] | None], str]:
    """Names at the top of the file with their shapes, and the root attribute `schema`.

    Raises InputError for a damaged file: no other reader of this program makes more of it. The extra is asked for
    here, so that a file that needs it is not taken for something else.
    """
    h5 = _library()
    try:
        with h5.File(path, "r") as file:
            shapes: dict[str, tuple[int, ...] | None] = {}
            for name in file:
                own = isinstance(file.get(name, getlink=True), h5.HardLink)
                found = file[name] if own else None
                shapes[name] = tuple(found.shape or ()) if isinstance(found, h5.Dataset) else None
            schema = file.attrs.get("schema", "")
            return shapes, schema if isinstance(schema, str) else ""
    except _DAMAGE as error:
        raise InputError(f"{path} is truncated or damaged (HDF5); copy it again from its source") from error


def _is_own(group: h5py.Group, name: str, path: Path) -> bool:
    link = group.get(name, getlink=True)
    if link is None:
        return False
    if not isinstance(link, _library().HardLink):
        raise InputError(f"/{name} in {path} is a link to another place; write a file that holds all its data")
    return True


def _library() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UsageError(f"projection data in HDF5 files need h5py: {install_extra('projections')}") from error
    return h5py
