"""A first look at a file or folder, from which every format of projection data is recognised.

Reads no more than the first bytes, the names at the top of an HDF5 file, and the headers of a few DICOM files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from klip_engine.io.projections.hdf5 import SIGNATURE, top_level

_START = 1024
_FILES_TO_TRY = 5
FOCAL_CENTER_ANGLE = 0x70311001
"""DICOM-CT-PD DetectorFocalCenterAngularPosition; no other kind of DICOM has it."""


@dataclass(frozen=True)
class FirstLook:
    """path; start: the first bytes of a file, empty for a folder; hdf5: shapes of what is at the top of an HDF5
    file, by name (groups have none); schema: its root attribute; is_ct_pd: DICOM with the private tags of CT-PD."""

    path: Path
    start: bytes = b""
    hdf5: Mapping[str, tuple[int, ...] | None] = field(default_factory=dict)
    schema: str = ""
    is_ct_pd: bool = False


def look(path: Path) -> FirstLook:
    """Look at a file or folder; what cannot be opened looks like nothing."""
    if path.is_dir():
        return FirstLook(path, is_ct_pd=_holds_ct_pd(path))
    try:
        with path.open("rb") as stream:
            start = stream.read(_START)
    except OSError:
        return FirstLook(path)
    if SIGNATURE in (start[:8], start[512:520]):
        names, schema = top_level(path)
        return FirstLook(path, start, names, schema)
    return FirstLook(path, start, is_ct_pd=start[128:132] == b"DICM" and _is_ct_pd(path))


def _holds_ct_pd(folder: Path) -> bool:
    """Whether one of the first DICOM files of a folder is a projection."""
    tried = 0
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        if _is_ct_pd(path):
            return True
        tried += 1
        if tried == _FILES_TO_TRY:
            return False
    return False


def _is_ct_pd(path: Path) -> bool:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[FOCAL_CENTER_ANGLE])
    except Exception:  # no DICOM, or damaged: pydicom raises whatever the damage happens to cause
        return False
    return FOCAL_CENTER_ANGLE in header
