"""One picture of a result: its strongest findings on axial slices, their figures and the notice. No patient data.

Everything is drawn from the written maps and the source volume on 1 mm axial slices, seen from the feet.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from klip_engine.body import BODY_THRESHOLD_HU
from klip_engine.detection import NOTICE, Finding
from klip_engine.io.dicom_results.written import WrittenResults
from klip_engine.io.picture_window import Window, window_around
from klip_engine.io.report_parts import number_text, p_value_text
from klip_engine.io.report_pictures import (
    on_display,
    overlay,
    score_rgb,
    slice_of,
    slices_around,
    smooth_mask,
)
from klip_engine.io.score_picture import picture_font
from klip_engine.io.shown_slice import score_top, shown_slice
from klip_engine.io.usual_slices import rate_text
from klip_engine.volume import AIR_HU, BoolArray, CTVolume, Geometry

SHOWN = 4
_WIDTH, _PICTURE, _MARGIN, _GAP = 1120, (346, 284), 20, 21
_PAGE, _INK, _DIM, _WARNING = (20, 23, 27), (228, 231, 235), (160, 167, 176), (255, 196, 87)
_AROUND_BODY_MM = 10.0
_SCALE_BARS_MM = (50, 20, 10, 5, 2, 1)


def summary_page(results: WrittenResults, source: CTVolume) -> npt.NDArray[np.uint8]:
    """RGB [rows, columns, 3] of the strongest findings: input, overlay and score each, or of the highest slice."""
    shown = results.findings[:SHOWN]
    rows = max(1, len(shown))
    header, row_height = 134, _PICTURE[1] + 44
    page = Image.new("RGB", (_WIDTH, header + rows * row_height + 34), _PAGE)
    draw = ImageDraw.Draw(page)
    _write_header(draw, results)
    top = score_top(results.slices, results.findings, results.threshold)
    for number in range(rows):
        finding = shown[number] if shown else None
        _draw_row(page, draw, header + number * row_height, results, source, finding, top)
    legend = (
        "Seen from the feet: R and L are the patient's right and left. Score: black 0 to pale yellow "
        f"{number_text(top)}."
    )
    _text(draw, (_MARGIN, page.height - 28), legend, 13, _DIM)
    return np.asarray(page)


def _write_header(draw: ImageDraw.ImageDraw, results: WrittenResults) -> None:
    document = results.document
    _text(draw, (_MARGIN, 14), "KLIP: suspicious regions in CT", 24, _INK)
    for number, line in enumerate(textwrap.wrap(NOTICE, 150)):
        _text(draw, (_MARGIN, 48 + 20 * number), line, 15, _WARNING)
    count = len(results.findings)
    found = {0: "No region scores", 1: "1 region scores"}.get(count, f"{count} regions score")
    sentence = f"{found} above the threshold of {number_text(results.threshold or float('nan'))}"
    if count > SHOWN:
        sentence += f"; the {SHOWN} strongest are shown"
    if count == 0:
        sentence += ". That does not mean that the scan is normal; the slice with the highest score is shown"
    _text(draw, (_MARGIN, 76), f"{sentence}.", 15, _INK)
    settings = document.get("settings", {})
    rate = rate_text(settings, len(document.get("null", {}).get("maxima", ())))
    prior = document.get("prior", {})
    facts = f"klip-engine {document.get('engine')}, prior {prior.get('name')} {str(prior.get('hash'))[:19]}"
    _text(draw, (_MARGIN, 100), f"{facts}, rate of false alarms {rate}", 13, _DIM)


def _draw_row(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    y: int,
    results: WrittenResults,
    source: CTVolume,
    finding: Finding | None,
    top: float,
) -> None:
    """Title and three pictures of a finding, or of the place of the highest score."""
    z_mm = _height(results, finding)
    display = _display_grid(source, z_mm)
    hu = on_display(source.hu, source.geometry, display, AIR_HU)
    this, others = _masks(results, finding, display)
    window = window_around(hu, this)
    grey = window.grey(hu)
    score = score_rgb(on_display(results.score, results.geometry, display, 0.0), top)
    pictures = (
        ("Input", np.repeat(grey[..., None], 3, axis=-1)),
        ("Overlay", overlay(grey, this, others)),
        ("Score", score),
    )
    _text(draw, (_MARGIN, y), _title(finding, z_mm, window), 15, _INK)
    for column, (name, rgb) in enumerate(pictures):
        left = _MARGIN + column * (_PICTURE[0] + _GAP)
        _paste(page, draw, (left, y + 24), name, rgb)


def _title(finding: Finding | None, z_mm: float, window: Window) -> str:
    where = f"axial slice at z {number_text(z_mm, 1)} mm, {window.name} window"
    if finding is None:
        return f"Below the threshold: {where}"
    x, y, z = (number_text(v, 0) for v in finding.centroid_lps_mm)
    return (
        f"Finding {finding.label}: score {number_text(finding.score)}, p {p_value_text(finding.p_value)}, "
        f"{number_text(finding.volume_ml, 2)} ml, centre x {x}, y {y}, z {z} mm (LPS); {where}"
    )


def _paste(
    page: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], name: str, rgb: npt.NDArray[np.uint8]
) -> None:
    """One picture, scaled into its frame, with its name, sides and a scale bar."""
    left, top = corner
    height, width = rgb.shape[:2]
    zoom = min(_PICTURE[0] / width, _PICTURE[1] / height)
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    picture = Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR)
    page.paste((0, 0, 0), (left, top, left + _PICTURE[0], top + _PICTURE[1]))
    page.paste(picture, (left + (_PICTURE[0] - size[0]) // 2, top + (_PICTURE[1] - size[1]) // 2))
    _text(draw, (left + 8, top + 6), name, 14, _INK)
    middle = top + _PICTURE[1] // 2 - 8
    _text(draw, (left + 6, middle), "R", 14, _INK)
    _text(draw, (left + _PICTURE[0] - 16, middle), "L", 14, _INK)
    length = next((mm for mm in _SCALE_BARS_MM if mm * zoom < _PICTURE[0] / 3), _SCALE_BARS_MM[-1])
    end, base = left + 8 + round(length * zoom), top + _PICTURE[1] - 11
    draw.line((left + 8, base, end, base), fill=(0, 0, 0), width=6)
    draw.line((left + 8, base, end, base), fill=_INK, width=2)
    _text(draw, (end + 7, base - 9), f"{length} mm", 13, _INK)


def _height(results: WrittenResults, finding: Finding | None) -> float:
    """LPS z in mm of the axial slice to show."""
    shown = shown_slice(results.slices, finding)
    if shown is not None:
        return shown.position_mm
    highest = np.argwhere(results.score == results.score.max())[0]
    return float(results.geometry.to_lps(highest[::-1])[2] if finding is None else finding.centroid_lps_mm[2])


def _display_grid(source: CTVolume, z_mm: float) -> Geometry:
    """1 mm pixels around what is denser than air on the axial slice at this height."""
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (
        np.asarray(source.geometry.size) - 1
    )
    points = source.geometry.to_lps(corners)
    low, high = points.min(axis=0), points.max(axis=0)
    size = np.maximum(np.ceil(high - low).astype(int), 1)
    whole = Geometry((int(size[0]), int(size[1]), 1), (1.0, 1.0, 1.0), (float(low[0]), float(low[1]), z_mm))
    dense = on_display(source.hu, source.geometry, whole, AIR_HU) > BODY_THRESHOLD_HU
    if not dense.any():
        return whole
    first_x, last_x = _extent(dense.any(axis=0))
    first_y, last_y = _extent(dense.any(axis=1))
    origin = (whole.origin[0] + first_x, whole.origin[1] + first_y, whole.origin[2])
    return Geometry((last_x - first_x, last_y - first_y, 1), whole.spacing, origin)


def _extent(occupied: Any) -> tuple[int, int]:
    """First and last + 1 of what is occupied, with a margin, inside the picture."""
    places = np.flatnonzero(occupied)
    margin = round(_AROUND_BODY_MM)
    return max(0, int(places[0]) - margin), min(len(occupied), int(places[-1]) + 1 + margin)


def _masks(results: WrittenResults, finding: Finding | None, display: Geometry) -> tuple[BoolArray, BoolArray]:
    """This finding and all others on the display slice [y, x]."""
    first, last = slices_around(results.geometry, display)
    nothing = np.zeros(display.size[1::-1], dtype=bool)
    if first >= last:
        return nothing, nothing
    regions = results.regions[first:last]
    geometry = slice_of(results.geometry, first, last - first)
    this = regions == finding.label if finding is not None else np.zeros_like(regions, dtype=bool)
    return smooth_mask(this, geometry, display), smooth_mask((regions > 0) & ~this, geometry, display)


def _text(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, ink: tuple[int, int, int]
) -> None:
    """Text with a dark edge: it also lies on bright pictures."""
    font = picture_font(size)
    draw.text(place, text.replace("\u2212", "-"), fill=ink, font=font, stroke_width=2, stroke_fill=_PAGE)
