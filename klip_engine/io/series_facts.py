"""What the headers of a CT series say: whether it makes one volume, how it lies, how thick and how sharp it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from klip_engine.errors import InputError
from klip_engine.io.dicom_enhanced import check_concatenations, check_phases, stacks_of
from klip_engine.io.dicom_headers import FileHeader, pseudonym
from klip_engine.io.dicom_slices import SliceHeader, slice_headers
from klip_engine.io.slice_stack import SliceStack, stack_slices

_AXIAL_COSINE = 0.8
"""A slice whose normal is this close to the body's axis is axial: gantry tilts stay below 31 degrees."""


@dataclass(frozen=True)
class Series:
    """One CT series of a study, before its pixels are read.

    slices: those of the volume, or of the part that was understood; stack: their order and grid, None where
    `problem` says why they make no volume; localizers: scout views left out; notices: what the user should know.
    """

    files: tuple[FileHeader, ...]
    slices: tuple[SliceHeader, ...]
    stack: SliceStack | None
    problem: InputError | None
    localizers: int
    notices: tuple[str, ...]

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return self.files[0].series

    @property
    def key(self) -> str:
        """Stands for the UID where it must not be told."""
        return pseudonym(self.uid)

    @property
    def number(self) -> str:
        """SeriesNumber, '?' where missing."""
        return self.files[0].series_number

    @property
    def count(self) -> int:
        """Slices, as far as the headers tell; of a series of scout views their number."""
        return len(self.slices) or sum(file.slices for file in self.files) or self.localizers

    @property
    def image_type(self) -> tuple[str, ...]:
        """Of its first slice (PS3.3 C.7.6.1.1.2)."""
        return self.slices[0].image_type if self.slices else self.files[0].image_type

    @property
    def kernel(self) -> str:
        """The kernel most slices were reconstructed with, empty where none is named."""
        kernels = Counter(s.kernel for s in self.slices)
        return min(kernels, key=lambda name: (-kernels[name], name)) if kernels else ""

    @property
    def plane(self) -> str:
        """'axial', 'coronal' or 'sagittal', by the axis of the body next to the slice normal; empty if unknown."""
        if not self.slices:
            return ""
        normal = np.abs(self.slices[0].normal)
        if normal[2] >= _AXIAL_COSINE:
            return "axial"
        return ("sagittal", "coronal", "oblique")[int(normal.argmax())]

    @property
    def spacing_mm(self) -> float | None:
        """Distance of the slices."""
        return self.stack.geometry.spacing[2] if self.stack else None

    @property
    def coverage_mm(self) -> float:
        """How much of the body the slices cover along their normal."""
        return self.stack.geometry.spacing[2] * self.stack.geometry.size[2] if self.stack else 0.0

    def described(self) -> dict[str, Any]:
        """As `klip-engine info` tells it; no UID, no words of the user's."""
        return {
            "series": self.key,
            "number": self.number,
            "slices": self.count,
            "spacing_mm": None if self.spacing_mm is None else round(self.spacing_mm, 3),
            "plane": self.plane or None,
            "kernel": self.kernel or None,
            "image_type": list(self.image_type),
        }


def series_of(files: Iterable[FileHeader], name: str) -> list[Series]:
    """The series that CT files belong to; `name` is how the user calls where they come from."""
    groups: dict[str, list[FileHeader]] = {}
    for file in files:
        groups.setdefault(file.series, []).append(file)
    return [_examined(group, name) for group in groups.values()]


def _examined(files: Sequence[FileHeader], name: str) -> Series:
    slices: list[SliceHeader] = []
    localizers = 0
    try:
        found = [s for file in files if not file.is_localizer for s in slice_headers(file)]
        slices = [s for s in found if not s.is_localizer]
        localizers = len(found) - len(slices) + sum(file.frames for file in files if file.is_localizer)
        if not slices:
            raise InputError(f"{name} holds only localizers (scout views), no CT slices; give the scan itself")
        check_concatenations(files, name)
        stack, notices = _stacked(slices, name)
    except InputError as error:
        return Series(tuple(files), tuple(slices), None, error, localizers, ())
    if localizers:
        notices = (_localizer_notice(localizers), *notices)
    return Series(tuple(files), stack.slices, stack, None, localizers, (*notices, *stack.notices))


def _stacked(slices: Sequence[SliceHeader], name: str) -> tuple[SliceStack, tuple[str, ...]]:
    """All slices as one volume; where they make none, the largest of the stacks their frames belong to."""
    stacks = stacks_of(slices)
    try:
        check_phases(slices, name)
        return stack_slices(slices, name), ()
    except InputError:
        if len(stacks) == 1:
            raise
    check_phases(stacks[0], name)
    left_out = sum(len(stack) for stack in stacks[1:])
    notice = f"The frames form {len(stacks)} stacks; the largest was read, {left_out} other frames left out."
    return stack_slices(stacks[0], name), (notice,)


def _localizer_notice(count: int) -> str:
    if count == 1:
        return "1 localizer (scout view) in the series was left out."
    return f"{count} localizers (scout views) in the series were left out."
