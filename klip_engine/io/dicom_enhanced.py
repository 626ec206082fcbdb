"""Enhanced multi-frame CT (PS3.3 A.38): functional groups, concatenations, stacks and temporal positions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from klip_engine.errors import InputError
from klip_engine.io.dicom_headers import FileHeader

if TYPE_CHECKING:
    from klip_engine.io.dicom_slices import SliceHeader

_MACROS = (
    "PixelMeasuresSequence",  # C.7.6.16.2.1
    "FrameContentSequence",  # C.7.6.16.2.2
    "PlanePositionSequence",  # C.7.6.16.2.3
    "PlaneOrientationSequence",  # C.7.6.16.2.4
    "CardiacSynchronizationSequence",  # C.7.6.16.2.7
    "PixelValueTransformationSequence",  # C.7.6.16.2.9
    "CTImageFrameTypeSequence",  # C.8.15.3.1
    "CTAcquisitionDetailsSequence",  # C.8.15.3.3: the tilt of the gantry
    "CTReconstructionSequence",  # C.8.15.3.7: the kernel
    "UnassignedSharedConvertedAttributesSequence",  # C.7.6.16.2.22: what a converter from classic CT kept
    "UnassignedPerFrameConvertedAttributesSequence",
)


def frame_groups(file: FileHeader) -> Iterator[list[Dataset]]:
    """For each frame the items of its functional groups, its own before the shared ones (PS3.3 C.7.6.16).

    Raises InputError when not every frame has its own groups.
    """
    shared = list(file.dataset.get("SharedFunctionalGroupsSequence") or [])
    per_frame = list(file.dataset.get("PerFrameFunctionalGroupsSequence") or [])
    if len(per_frame) != file.frames:
        raise InputError(
            f"{file.path} announces {file.frames} frames but places {len(per_frame)} of them; export it again"
        )
    for own in per_frame:
        yield [
            group[macro].value[0]
            for group in (own, *shared)
            for macro in _MACROS
            if macro in group and group[macro].VR == "SQ" and len(group[macro].value)
        ]


def check_concatenations(files: Sequence[FileHeader], name: str) -> None:
    """Raise InputError where a concatenation (PS3.3 C.7.6.16.2.2.4) is not there completely.

    Its parts need no joining: their frames are placed like those of any other file.
    """
    parts: dict[str, list[FileHeader]] = {}
    for file in files:
        uid = str(file.dataset.get("ConcatenationUID") or "")
        if uid:
            parts.setdefault(uid, []).append(file)
    for found in parts.values():
        numbers = {int(file.dataset.get("InConcatenationNumber") or 0) for file in found}
        total = max(int(file.dataset.get("InConcatenationTotalNumber") or 0) for file in found)
        last = min(max(total, *numbers), 10_000)
        missing = [number for number in range(1, last + 1) if number not in numbers]
        if missing:
            raise InputError(
                f"{name} holds a multi-frame image in {last} files of which number {missing[0]} is missing; "
                "export the series completely"
            )


def check_phases(slices: Sequence[SliceHeader], name: str) -> None:
    """Raise InputError where the same places were imaged several times: a 4D or cardiac series."""
    places = Counter(tuple(s.position.round(2)) for s in slices)
    phases = {s.phase for s in slices}
    if len(phases) > 1 and max(places.values()) > 1:
        raise InputError(
            f"{name} holds {len(phases)} temporal positions or cardiac phases of the same slices; "
            "export one of them as a series of its own"
        )


def stacks_of(slices: Sequence[SliceHeader]) -> list[list[SliceHeader]]:
    """The slices of each stack (PS3.3 C.7.6.16.2.2.4), the one with the most slices first, then by its name."""
    stacks: dict[str, list[SliceHeader]] = {}
    for one in slices:
        stacks.setdefault(one.stack, []).append(one)
    return [stacks[key] for key in sorted(stacks, key=lambda key: (-len(stacks[key]), key))]
