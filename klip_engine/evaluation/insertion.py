"""Puts synthetic lesions with a recorded truth into CT volumes, on the volume's own grid.

Sizes, positions and orientations are in millimetres in the patient (LPS), so that the same record means the
same lesion on any grid, oblique and anisotropic ones included. A lesion is blended in by its partial volume
in each voxel and keeps the noise of the tissue it replaces. It is cut off where the scan ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from klip_engine.errors import InputError, UsageError
from klip_engine.evaluation.lesions import Diameters, lesion_kind
from klip_engine.evaluation.placement import Place, cropped, pose_at
from klip_engine.evaluation.shapes import Box, Pose, Relief, coverage
from klip_engine.evaluation.tissue import Room, Tissues
from klip_engine.volume import BoolArray, CTVolume, FloatArray, Geometry

_SIZES_TRIED = 8


@dataclass(frozen=True)
class LesionRecord:
    """The truth about one inserted lesion.

    diameters_mm: full extent along the shape's axes; axes_lps: 3 x 3 row-major, column k is the LPS unit
    vector of axis k; contrast_hu: what it differs from background_hu, the median of the tissue it replaced;
    slice_range: first and last index of the slices its mask touches; volume_ml: of the whole shape.
    """

    kind: str
    centre_lps_mm: tuple[float, float, float]
    diameters_mm: Diameters
    axes_lps: tuple[float, ...]
    contrast_hu: float
    background_hu: float
    slice_range: tuple[int, int]
    volume_ml: float


@dataclass(frozen=True)
class FluidRecord(LesionRecord):
    """The truth about fluid; wall_mm: the wall it lies on (`klip_engine.evaluation.shapes.Crescent`)."""

    wall_mm: Relief = ()


@dataclass(frozen=True)
class Insertion:
    """A volume with a lesion in it; mask [z, y, x]: the voxels that the lesion fills by half or more."""

    volume: CTVolume
    mask: BoolArray
    record: LesionRecord


def insert(
    volume: CTVolume,
    kind: str,
    rng: np.random.Generator,
    *,
    diameters_mm: Diameters | None = None,
    contrast_hu: float | None = None,
    tissue: BoolArray | Room | None = None,
) -> Insertion:
    """Insert one lesion at a random place that fits it; the same generator state gives the same lesion.

    kind: a name in `LESION_KINDS`. Size (mm along the shape's axes) and contrast (HU against the surrounding
    tissue) are drawn from the kind's range unless given. tissue: [z, y, x], where it may lie, instead of
    `lesion_kind(kind).tissue(volume)`. When many lesions go into one volume, pass a `Room`, which keeps what all
    of them need.

    Raises UsageError for an unknown kind or a size that is not positive, InputError when the lesion fits
    nowhere.
    """
    model = lesion_kind(kind)
    if tissue is None:
        tissue = model.room(Tissues(volume))
    room = tissue if isinstance(tissue, Room) else Room(volume, tissue)
    if room.mask.shape != volume.hu.shape:
        raise UsageError(f"The tissue mask {room.mask.shape} does not match the volume {volume.hu.shape}.")
    for _ in range(_SIZES_TRIED if diameters_mm is None else 1):
        size = _checked(diameters_mm or model.draw_diameters(rng))
        axes = model.draw_axes(rng, volume.geometry)
        place = model.place(size, axes, volume, room, rng)
        if place is not None:
            return _inserted(volume, kind, size, place, contrast_hu, rng)
    raise InputError(
        f"No place for a {kind} of {' x '.join(f'{d:.0f}' for d in size)} mm was found in this volume: "
        "its tissue is too small or missing; take a smaller lesion, another kind or another scan."
    )


def insert_at(
    volume: CTVolume,
    kind: str,
    centre_lps_mm: Sequence[float],
    *,
    diameters_mm: Diameters | None = None,
    contrast_hu: float | None = None,
    axes_lps: Sequence[float] | None = None,
    rng: np.random.Generator | None = None,
) -> Insertion:
    """Insert one lesion with its centre at a known LPS point in mm, whatever tissue lies there.

    What is not given (size, contrast, orientation as in `LesionRecord`) is drawn from `rng`, by default one
    seeded with 0. Raises UsageError for an unknown kind, a size that is not positive, axes that are no
    rotation or reflection, or a lesion that lies outside the volume.
    """
    model = lesion_kind(kind)
    rng = rng or np.random.default_rng(0)
    size = _checked(diameters_mm or model.draw_diameters(rng))
    axes = model.draw_axes(rng, volume.geometry) if axes_lps is None else _orthonormal(axes_lps)
    return _inserted(volume, kind, size, Place(pose_at(centre_lps_mm, axes)), contrast_hu, rng)


def lesion_mask(record: LesionRecord, geometry: Geometry) -> BoolArray:
    """The mask [z, y, x] of a recorded lesion on any grid; all False where the grid does not reach it."""
    wall_mm = record.wall_mm if isinstance(record, FluidRecord) else ()
    shape = lesion_kind(record.kind).shape(record.diameters_mm, wall_mm)
    box, weight = coverage(shape, Pose(record.centre_lps_mm, record.axes_lps), geometry)
    return _full_mask(box, weight, geometry)


def _inserted(
    volume: CTVolume,
    kind: str,
    size: Diameters,
    place: Place,
    contrast_hu: float | None,
    rng: np.random.Generator,
) -> Insertion:
    model = lesion_kind(kind)
    geometry, pose = volume.geometry, place.pose
    shape = model.shape(size, place.wall_mm)
    margin = int(np.ceil(10.0 / min(geometry.spacing[:2])))
    box, weight = coverage(shape, pose, geometry, margin=margin)
    mask = _full_mask(box, weight, geometry)
    if not mask.any():
        raise UsageError(f"The {kind} at {_millimetres(pose.centre_lps_mm)} lies outside the volume.")
    background = float(np.median(volume.hu[mask]))
    contrast = model.draw_contrast(rng, background) if contrast_hu is None else float(contrast_hu)
    hu = volume.hu.copy()
    hu[box] = model.blend(cropped(volume, box), weight, contrast, background)
    model.spoil(hu, volume, box, weight, rng)
    touched = np.flatnonzero(mask.any(axis=(1, 2)))
    record = LesionRecord(
        kind,
        pose.centre_lps_mm,
        size,
        pose.axes_lps,
        contrast,
        background,
        (int(touched[0]), int(touched[-1])),
        shape.volume_mm3 / 1000.0,
    )
    if place.wall_mm:
        record = FluidRecord(**vars(record), wall_mm=place.wall_mm)
    return Insertion(CTVolume(hu, geometry), mask, record)


def _full_mask(box: Box, weight: FloatArray, geometry: Geometry) -> BoolArray:
    """Voxels filled by half or more; by half of the fullest one where slices are thicker than the lesion."""
    mask = np.zeros(geometry.size[::-1], dtype=bool)
    if weight.any():
        mask[box] = weight >= 0.5 * weight.max()
    return mask


def _checked(diameters_mm: Sequence[float]) -> Diameters:
    if len(diameters_mm) != 3 or not all(np.isfinite(d) and d > 0 for d in diameters_mm):
        raise UsageError(f"A lesion has three positive diameters in mm, not {tuple(diameters_mm)}.")
    a, b, c = (float(d) for d in diameters_mm)
    return a, b, c


def _orthonormal(axes_lps: Sequence[float]) -> npt.NDArray[np.float64]:
    axes = np.asarray(axes_lps, dtype=np.float64)
    if axes.size != 9 or not np.allclose(axes.reshape(3, 3).T @ axes.reshape(3, 3), np.eye(3), atol=1e-4):
        raise UsageError("axes_lps must be nine numbers whose columns are orthogonal unit vectors.")
    return axes.reshape(3, 3)


def _millimetres(point: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.1f}' for value in point)}) mm LPS"
