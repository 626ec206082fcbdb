"""What a reader hands over: the volume or photograph, where it came from, and what the user should know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from klip_engine.photograph import Photograph
from klip_engine.volume import CTVolume


@dataclass(frozen=True)
class LoadedCT:
    """A volume as read, what it was read from (`input` in findings.json) and sentences for the user.

    Neither `description` nor `notices` holds patient data: no names, numbers, dates or DICOM UIDs.
    """

    volume: CTVolume
    description: dict[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedPhotograph:
    """A photograph as read, beside `LoadedCT`."""

    photograph: Photograph
    description: dict[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


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
