"""The pictures of the report: input, reconstruction, score and overlay on an axial slice, as PNG.

Everything is drawn on a 1 mm axis-aligned LPS grid, so the patient's right is on the left of the picture and
the front is at the top, as radiologists are used to, however the input lies in space.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from klip_engine.detection import Detection, Finding
from klip_engine.io.measured_scan_text import FIRST_IMAGE, is_of_projections
from klip_engine.io.picture_window import Window, window_around
from klip_engine.io.shown_slice import score_top, shown_slice
from klip_engine.volume import AIR_HU, BoolArray, CTVolume, FloatArray, Geometry
from klip_engine.working_grid import from_working_grid

PIXEL_MM = 1.0
_MARGIN_MM = 12.0
_SMALL_MM = 10.0
"""A finding less wide on its slice gets a ring of the radius `_RING_MM` as well."""
_RING_MM = 14.0
THIS_FINDING = (255, 176, 32)
OTHER_FINDINGS = (92, 190, 255)
_TINT = 0.22
_BODY_OUTLINE = (110, 116, 124)

SCORE_COLOURS: tuple[tuple[int, int, int], ...] = (
    (0, 0, 4),
    (11, 7, 36),
    (33, 12, 74),
    (61, 9, 101),
    (87, 16, 110),
    (113, 25, 110),
    (138, 34, 106),
    (163, 44, 97),
    (188, 55, 84),
    (210, 70, 68),
    (228, 90, 49),
    (241, 115, 29),
    (249, 142, 9),
    (252, 172, 17),
    (249, 203, 53),
    (242, 234, 105),
    (252, 255, 164),
)
"""A perceptually uniform scale from black over red to pale yellow, evenly spaced."""


@dataclass(frozen=True)
class Picture:
    """One picture of a row: what it shows, and the PNG file."""

    caption: str
    png: bytes


@dataclass(frozen=True)
class PictureRow:
    """Input, reconstruction, score and, for a finding, overlay of one slice.

    label: the finding shown, None for a slice without one; z_mm: LPS height of the slice; width_mm: of each
    picture; window: of the grey pictures.
    """

    label: int | None
    z_mm: float
    width_mm: float
    window: Window
    pictures: tuple[Picture, ...]


def picture_rows(detection: Detection, labels: Sequence[int]) -> list[PictureRow]:
    """One row per finding, on the axial slice of `shown_slice`."""
    findings = {finding.label: finding for finding in detection.findings}
    return [_row(detection, label, _height(detection, findings[label])) for label in labels]


def highest_slice(detection: Detection) -> PictureRow:
    """The slice with the highest score anywhere, for a detection without findings."""
    return _row(detection, None, _height(detection, None))


def score_scale_top(detection: Detection) -> float:
    """The score at the bright end of the colour scale."""
    return score_top(detection.slices, detection.findings, detection.threshold)


def png_bytes(array: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> bytes:
    """A PNG file of grey values [y, x], uint8 or uint16, or of RGB [y, x, 3], uint8."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


def score_rgb(score: FloatArray, top: float) -> npt.NDArray[np.uint8]:
    """Scores of any shape to RGB [..., 3] on the colour scale from 0 to `top`."""
    place = np.clip(_finite(score) / top, 0, 1) * (len(SCORE_COLOURS) - 1)
    colours = np.asarray(SCORE_COLOURS, dtype=np.float64)
    channels = [np.interp(place, np.arange(len(colours)), colours[:, c]) for c in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _height(detection: Detection, finding: Finding | None) -> int:
    """The working slice to show."""
    shown = shown_slice(detection.slices, finding)
    if shown is None:
        return 0
    z = detection.working.geometry.to_index((0, 0, shown.position_mm))[2]
    return int(np.clip(round(float(z)), 0, detection.working.geometry.size[2] - 1))


def _row(detection: Detection, label: int | None, z: int) -> PictureRow:
    working = detection.working
    display = _display_grid(detection, z)
    source = detection.source
    if isinstance(source, CTVolume):
        measured = on_display(source.hu, source.geometry, display, AIR_HU)
    else:
        measured = on_display(working.measured, working.geometry, display, AIR_HU)
    reconstruction = on_display(working.reconstruction, working.geometry, display, AIR_HU)
    score = on_display(_finite(working.score[z : z + 1]), slice_of(working.geometry, z), display, 0.0)
    this, others = _masks(detection, label, z, display)
    window = window_around(measured, this)
    grey = window.grey(measured)
    coloured = score_rgb(score, score_scale_top(detection))
    body = smooth_mask(working.body[z : z + 1], slice_of(working.geometry, z), display)
    coloured[grown(body, 1) & ~body] = _BODY_OUTLINE
    pictures = [
        Picture(FIRST_IMAGE if is_of_projections(detection) else "Input", png_bytes(grey)),
        Picture("Reconstruction", png_bytes(window.grey(reconstruction))),
        Picture("Score", png_bytes(coloured)),
    ]
    if label is not None:
        pictures.append(Picture("Overlay", png_bytes(overlay(grey, this, others))))
    z_mm = float(working.geometry.to_lps((0, 0, z))[2])
    return PictureRow(label, z_mm, display.size[0] * PIXEL_MM, window, tuple(pictures))


def _display_grid(detection: Detection, z: int) -> Geometry:
    """One axial slice of 1 mm pixels around the body, at the height of a working slice."""
    working = detection.working.geometry
    low, high = [], []
    for axis, reduced in ((0, (0, 1)), (1, (0, 2))):  # x, y
        occupied = np.flatnonzero(detection.working.body.any(axis=reduced))
        first, last = (occupied[0], occupied[-1]) if occupied.size else (0, working.size[axis] - 1)
        step, origin = working.spacing[axis], working.origin[axis]
        edge = origin - step / 2, origin + (working.size[axis] - 0.5) * step
        low.append(max(edge[0], origin + (first - 0.5) * step - _MARGIN_MM))
        high.append(min(edge[1], origin + (last + 0.5) * step + _MARGIN_MM))
    size = [max(1, math.floor((h - lo) / PIXEL_MM)) for lo, h in zip(low, high, strict=True)]
    height = float(working.to_lps((0, 0, z))[2])
    return Geometry(
        (size[0], size[1], 1),
        (PIXEL_MM, PIXEL_MM, working.spacing[2]),
        (low[0] + PIXEL_MM / 2, low[1] + PIXEL_MM / 2, height),
    )


def on_display(array: npt.NDArray[Any], geometry: Geometry, display: Geometry, outside: float) -> npt.NDArray[Any]:
    """[y, x] of an array [z, y, x] on the display slice; only the slices around it are touched."""
    first, last = slices_around(geometry, display)
    if first >= last:
        return np.full(display.size[1::-1], outside, dtype=array.dtype)
    slab = slice_of(geometry, first, last - first)
    return from_working_grid(array[first:last], slab, display, outside=outside)[0]


def slices_around(geometry: Geometry, display: Geometry) -> tuple[int, int]:
    """The slices [first, last) of a geometry that reach the display slice; first >= last where none does."""
    corners = [(i, j, 0) for i in (-0.5, display.size[0] - 0.5) for j in (-0.5, display.size[1] - 0.5)]
    heights = geometry.to_index(display.to_lps(np.array(corners)))[:, 2]
    return max(0, math.floor(heights.min()) - 1), min(geometry.size[2], math.ceil(heights.max()) + 2)


def slice_of(geometry: Geometry, first: int, count: int = 1) -> Geometry:
    """The geometry of the slices [first, first + count)."""
    x, y, z = geometry.to_lps((0, 0, first))
    size = (geometry.size[0], geometry.size[1], count)
    return replace(geometry, size=size, origin=(float(x), float(y), float(z)))


def _masks(detection: Detection, label: int | None, z: int, display: Geometry) -> tuple[BoolArray, BoolArray]:
    """This finding and all others on the display slice [y, x]."""
    regions = detection.working.regions[z : z + 1]
    geometry = slice_of(detection.working.geometry, z)
    this = regions == label if label is not None else np.zeros_like(regions, dtype=bool)
    others = (regions > 0) & ~this
    return smooth_mask(this, geometry, display), smooth_mask(others, geometry, display)


def smooth_mask(mask: BoolArray, geometry: Geometry, display: Geometry) -> BoolArray:
    """A mask [1, y, x] on the display slice [y, x]; its outline is interpolated, not stepped."""
    smooth: BoolArray = on_display(mask.astype(np.float32), geometry, display, 0.0) >= 0.5
    return smooth


def overlay(grey: npt.NDArray[np.uint8], this: BoolArray, others: BoolArray) -> npt.NDArray[np.uint8]:
    """The input with this finding tinted and outlined, a small one ringed as well, other findings outlined only;
    RGB [y, x, 3]."""
    rgb = np.repeat(grey[..., None], 3, axis=-1).astype(np.float32)
    rgb[this] = (1 - _TINT) * rgb[this] + _TINT * np.asarray(THIS_FINDING, dtype=np.float32)
    rgb[grown(others, 2) & ~others] = OTHER_FINDINGS
    rgb[grown(this, 2) & ~this] = THIS_FINDING
    rgb[_ring(this)] = THIS_FINDING
    return np.rint(rgb).astype(np.uint8)


def _ring(mask: BoolArray) -> BoolArray:
    """A thin ring around a finding whose outline is too small to be noticed; nothing around another."""
    rows, columns = np.nonzero(mask)
    if not rows.size or max(np.ptp(rows), np.ptp(columns)) * PIXEL_MM >= _SMALL_MM:
        return np.zeros_like(mask)
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    distance = np.hypot(y - rows.mean(), x - columns.mean()) * PIXEL_MM
    ring: BoolArray = np.abs(distance - _RING_MM) <= 0.7
    return ring


def grown(mask: BoolArray, pixels: int) -> BoolArray:
    """The mask [y, x] with its four neighbours, repeatedly."""
    for _ in range(pixels):
        wide = np.pad(mask, 1)
        mask = wide[1:-1, 1:-1] | wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
    return mask


def _finite(score: FloatArray) -> FloatArray:
    return np.nan_to_num(score, nan=0.0, posinf=0.0, neginf=0.0)
