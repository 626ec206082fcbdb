"""What a reader hands over: the volume or photograph, where it came from, and what the user should know."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from klip_engine.io.archives import PrivateFolder
from klip_engine.photograph import Photograph
from klip_engine.projections import Projections
from klip_engine.volume import CTVolume


@dataclass(frozen=True)
class LoadedCT:
    """A volume as read, what it was read from (`input` in findings.json) and sentences for the user.

    Neither `description` nor `notices` holds patient data: no names, numbers, dates or DICOM UIDs.
    dicom_files: where it was read from DICOM, the file of each slice in the order of the volume (a multi-frame
    file as often as it has slices); dicom_frames: the frames in it, counted from 0, None for classic files.
    unpacked: the temporary folder that dicom_files of an archive lie in; it goes when this object does.
    """

    volume: CTVolume
    description: dict[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    dicom_files: tuple[Path, ...] | None = None
    dicom_frames: tuple[int, ...] | None = None
    unpacked: PrivateFolder | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class LoadedPhotograph:
    """A photograph as read, beside `LoadedCT`."""

    photograph: Photograph
    description: dict[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


Loaded = LoadedCT | LoadedPhotograph | Projections
"""All that is read."""


def describe(volume: CTVolume, file_format: str, files: int, **more: str) -> dict[str, Any]:
    """The `input` part of findings.json; size and spacing are along (x, y, z)."""
    geometry = volume.geometry
    return {
        "format": file_format,
        "files": files,
        "size": list(geometry.size),
        "slices": geometry.size[2],
        "spacing_mm": [round(v, 6) for v in geometry.spacing],
        **more,
    }
