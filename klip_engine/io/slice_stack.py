"""From single DICOM slices to one rectangular volume: order, checks, gantry tilt and uneven spacing.

Slices are ordered by the projection of ImagePositionPatient on the slice normal (PS3.3 C.7.6.2.1.1), never by
InstanceNumber or file name. A stack that is sheared (gantry tilt) or slightly uneven is resampled onto a
rectangular grid while it is read; a stack with holes, doubles or mixed slices is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from klip_engine.errors import InputError
from klip_engine.io.dicom_slices import SliceHeader
from klip_engine.io.hounsfield import LOWEST_HU
from klip_engine.volume import FloatArray, Geometry

_SAME_COSINE = 5e-3
"""Direction cosines of one series may differ by this much."""
_SAME_SPACING = 5e-3
"""Pixel spacings of one series may differ by this share."""
_SAME_PLACE = 0.01
"""Gaps below this share of the median spacing are duplicates."""
_EVEN = 0.02
"""Positions this close (share of the spacing) to an even grid are even: headers round them."""
_UNEVEN_LIMIT = 0.10
"""Gaps that differ from the median by more than this share are not resampled but refused."""
_MISSING = 1.5
"""Gaps of more than this many median spacings are missing slices."""
_TILT_DEG = 0.5
"""Shears below this are rounding of the headers."""
_TILT_MISMATCH_DEG = 2.0
"""Declared and found tilt may differ by this much."""
_STEEPEST_DEG = 45.0
"""No gantry tilts more; a steeper shear is an error of the headers and would need a vast grid."""
_OFF_LINE_MM = 1.0
"""Slices may lie this far off the straight line through the stack."""

_MOST_PIXELS_PER_BYTE = 500
"""The strongest compression of an empty slice stays below this, header included."""


@dataclass(frozen=True)
class SliceStack:
    """Slices in ascending order along their normal and the rectangular grid they are read onto.

    offsets: for each slice the (x, y) pixels, fractional, by which it lies right of and below the first pixel
    of the grid; targets: for each slice of the grid (index below, weight of the next slice); both are trivial
    for a stack that is already rectangular. notices: what was corrected.
    """

    slices: tuple[SliceHeader, ...]
    geometry: Geometry
    offsets: npt.NDArray[np.float64]
    targets: tuple[tuple[int, float], ...]
    notices: tuple[str, ...]


def stack_slices(slices: Sequence[SliceHeader], name: str) -> SliceStack:
    """Order the slices of one series and find the grid to read them onto; `name` is how the user calls it.

    Raises InputError that says where: mixed orientation, matrix or pixel spacing, duplicate or missing
    slices, uneven spacing beyond 10 %, positions that contradict the declared gantry tilt.
    """
    for s in slices:
        if min(s.spacing) <= 0:
            raise InputError(f"{s.label} in {name} has a PixelSpacing of zero or less; export the original series")
    _check_uniform(slices, name)
    first = slices[0]
    along = np.array([s.position @ first.normal for s in slices])
    order = np.argsort(along, kind="stable")
    ordered, along = tuple(slices[i] for i in order), along[order]
    spacing = _checked_spacing(ordered, along, name)
    offsets, tilt = _checked_offsets(ordered, along, name)
    targets, unevenness = _even_targets(along)
    first = ordered[0]
    low = np.floor(offsets.min(axis=0) + 1e-6)
    offsets = np.maximum(np.round(offsets - low, 6), 0.0)
    grown = np.ceil(offsets.max(axis=0)).astype(int)
    origin = first.position + low[0] * first.spacing[0] * first.row + low[1] * first.spacing[1] * first.column
    geometry = Geometry(
        (first.size[0] + int(grown[0]), first.size[1] + int(grown[1]), len(ordered)),
        (*first.spacing, spacing),
        (float(origin[0]), float(origin[1]), float(origin[2])),
        tuple(float(v) for v in np.stack([first.row, first.column, first.normal], axis=1).ravel()),
    )
    return SliceStack(ordered, geometry, offsets, targets, _corrections(ordered, tilt, unevenness, spacing))


def check_size(stack: SliceStack, file_bytes: int, name: str) -> None:
    """Raise InputError where the volume is far larger than its files could hold, before memory is taken for it."""
    pixels = sum(one.size[0] * one.size[1] for one in stack.slices)
    if pixels > _MOST_PIXELS_PER_BYTE * file_bytes:
        raise InputError(
            f"{name} announces {pixels / 1e6:.0f} million pixels in {file_bytes / 1e6:.1f} MB of files: "
            "they are damaged or incomplete; export the series again"
        )


def read_stack(stack: SliceStack, read_slice: Callable[[SliceHeader], FloatArray]) -> FloatArray:
    """HU [z, y, x] float32 on the grid of the stack; `read_slice` gives the HU [y, x] of one slice.

    Every slice is read once; besides the result two slices are in memory.
    """
    hu = np.empty(stack.geometry.size[::-1], dtype=np.float32)
    kept: dict[int, FloatArray] = {}

    def placed(index: int) -> FloatArray:
        if index not in kept:
            plane = read_slice(stack.slices[index])
            kept[index] = _shifted(plane, stack.offsets[index], (hu.shape[1], hu.shape[2]))
        return kept[index]

    for z, (below, weight) in enumerate(stack.targets):
        for index in [i for i in kept if i < below]:
            del kept[index]
        hu[z] = placed(below)
        if weight > 0:
            hu[z] += np.float32(weight) * (placed(below + 1) - hu[z])
    return hu


def _check_uniform(slices: Sequence[SliceHeader], name: str) -> None:
    orientations = [np.concatenate([s.row, s.column]) for s in slices]
    _refuse_mixture("matrix sizes", slices, [np.array(s.size, dtype=float) for s in slices], 0.5, name)
    _refuse_mixture("orientations", slices, orientations, _SAME_COSINE, name)
    _refuse_mixture("pixel spacings", slices, [np.log(s.spacing) for s in slices], _SAME_SPACING, name)


def _refuse_mixture(
    what: str,
    slices: Sequence[SliceHeader],
    values: Sequence[npt.NDArray[np.float64]],
    tolerance: float,
    name: str,
) -> None:
    """Raise InputError unless all values agree; names the smallest group and one slice of it."""
    groups: list[list[int]] = []
    for i, value in enumerate(values):
        group = next((g for g in groups if np.abs(values[g[0]] - value).max() <= tolerance), None)
        if group is None:
            groups.append([i])
        else:
            group.append(i)
    if len(groups) > 1:
        groups.sort(key=len, reverse=True)
        counts = " and ".join(str(len(g)) for g in groups)
        raise InputError(
            f"the slices of {name} have {len(groups)} different {what} ({counts} slices; "
            f"{slices[groups[-1][0]].label} is one of the last): "
            "put the slices that belong together into a folder of their own"
        )


def _checked_spacing(slices: Sequence[SliceHeader], along: npt.NDArray[np.float64], name: str) -> float:
    """Mean distance of the slices in mm; a single slice has its own thickness."""
    if len(slices) == 1:
        return slices[0].thickness or 1.0
    gaps = np.diff(along)
    typical = float(np.median(gaps))
    mean = float(gaps.mean())
    same = np.flatnonzero(gaps <= max(_SAME_PLACE * mean, 1e-4))
    if same.size:
        i = int(same[0])
        raise InputError(
            f"{name} has {same.size} duplicate slice position(s), the first at {along[i]:.2f} mm along the "
            f"slice normal ({slices[i].label} and {slices[i + 1].label}): keep one phase or copy"
        )
    deviations = np.abs(gaps / typical - 1)
    if deviations.max() <= _UNEVEN_LIMIT:
        return mean
    i = int(deviations.argmax())
    place = f"between slices {i + 1} and {i + 2} of {len(slices)} ({along[i]:.2f} and {along[i + 1]:.2f} mm)"
    if gaps[i] > _MISSING * typical:
        raise InputError(
            f"slices are missing in {name} {place}: {gaps[i]:.2f} mm apart, {typical:.2f} mm elsewhere; "
            "export the series completely, or only the part without the gap"
        )
    raise InputError(
        f"the slices of {name} are unevenly spaced {place}: {gaps[i]:.2f} mm apart, {typical:.2f} mm "
        f"elsewhere, more than the {_UNEVEN_LIMIT:.0%} that can be resampled; "
        "reconstruct the series with even spacing"
    )


def _checked_offsets(
    slices: Sequence[SliceHeader], along: npt.NDArray[np.float64], name: str
) -> tuple[npt.NDArray[np.float64], float]:
    """In-plane place of each slice relative to the first in pixels (x, y), and the tilt in degrees.

    All zero where the slices follow their normal. Raises InputError where a tilt cannot be corrected.
    """
    first = slices[0]
    offsets = np.zeros((len(slices), 2))
    if len(slices) == 1:
        return offsets, 0.0
    moved = np.array([s.position - first.position for s in slices])
    in_plane = np.stack([moved @ first.row, moved @ first.column], axis=1)
    slope = in_plane[-1] / (along[-1] - along[0])
    off_line = np.linalg.norm(in_plane - np.outer(along - along[0], slope), axis=1)
    if off_line.max() > _OFF_LINE_MM:
        i = int(off_line.argmax())
        raise InputError(
            f"the slices of {name} do not lie on a straight line: slice {i + 1} of {len(slices)} "
            f"({along[i]:.2f} mm) is {off_line[i]:.1f} mm aside; export the original series"
        )
    tilt = math.degrees(math.atan(float(np.linalg.norm(slope))))
    declared = max((abs(s.tilt) for s in slices), default=0.0)
    if declared > _TILT_DEG and abs(declared - tilt) > _TILT_MISMATCH_DEG:
        raise InputError(
            f"{name} declares a gantry tilt of {declared:.1f} degrees but its slice positions show "
            f"{tilt:.1f}, so the tilt cannot be corrected; export the original series"
        )
    if tilt <= _TILT_DEG:
        return offsets, 0.0
    if tilt > _STEEPEST_DEG:
        raise InputError(
            f"the slices of {name} are sheared by {tilt:.0f} degrees, more than any gantry tilts; "
            "export the original series"
        )
    return in_plane / np.asarray(first.spacing), tilt


def _even_targets(along: npt.NDArray[np.float64]) -> tuple[tuple[tuple[int, float], ...], float]:
    """Which slices each slice of the even grid lies between, and the largest deviation from it (share)."""
    count = len(along)
    if count < 3:
        return tuple((i, 0.0) for i in range(count)), 0.0
    spacing = (along[-1] - along[0]) / (count - 1)
    even = along[0] + spacing * np.arange(count)
    deviation = float(np.abs(along - even).max() / spacing)
    if deviation <= _EVEN:
        return tuple((i, 0.0) for i in range(count)), 0.0
    below = np.clip(np.searchsorted(along, even, side="right") - 1, 0, count - 2)
    weights = np.clip((even - along[below]) / (along[below + 1] - along[below]), 0, 1)
    return tuple((int(i), float(w)) for i, w in zip(below, weights, strict=True)), deviation


def _corrections(slices: Sequence[SliceHeader], tilt: float, unevenness: float, spacing: float) -> tuple[str, ...]:
    notices = []
    if tilt:
        notices.append(
            f"The scan has a gantry tilt of {tilt:.1f} degrees; it was resampled onto a rectangular grid, "
            "and results are given in that grid."
        )
    if unevenness:
        notices.append(
            f"The slices are not evenly spaced (up to {unevenness * spacing:.2f} mm off); they were "
            f"resampled to one every {spacing:.3f} mm."
        )
    if len(slices) == 1 and not slices[0].thickness:
        notices.append("The slice does not state its thickness; 1 mm was assumed.")
    return tuple(notices)


def _shifted(plane: FloatArray, offset: npt.NDArray[np.float64], shape: tuple[int, int]) -> FloatArray:
    """The slice [y, x] moved by (x, y) pixels onto a larger canvas [y, x]; linear between pixels."""
    if plane.shape == shape and not offset.any():
        return plane
    whole = np.floor(offset).astype(int)
    part_x, part_y = offset - whole
    moved = _mixed(_mixed(plane, float(part_x), axis=1), float(part_y), axis=0)
    canvas = np.full(shape, LOWEST_HU, dtype=np.float32)
    room = canvas[whole[1] :, whole[0] :]
    height, width = min(room.shape[0], moved.shape[0]), min(room.shape[1], moved.shape[1])
    room[:height, :width] = moved[:height, :width]
    return canvas


def _mixed(plane: FloatArray, part: float, axis: int) -> FloatArray:
    """The slice moved by a fraction of a pixel along an axis, one pixel longer there."""
    before = [(0, 0), (0, 0)]
    after = [(0, 0), (0, 0)]
    before[axis], after[axis] = (1, 0), (0, 1)
    stay = np.pad(plane, after, constant_values=LOWEST_HU)
    move = np.pad(plane, before, constant_values=LOWEST_HU)
    mixed: FloatArray = (np.float32(1 - part) * stay + np.float32(part) * move).astype(np.float32, copy=False)
    return mixed
