"""A scan's geometry as a picture: sources, one fan and its detector, field of view; helical ones from the side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from klip_engine.io.measured_scan_text import views_text
from klip_engine.io.projections.facts import facts, field_of_view_radius_mm, view_angles_deg
from klip_engine.io.report_pictures import png_bytes
from klip_engine.projections import Projections

_SIDE, _SIDE_HEIGHT, _MARGIN, _LINE = 760, 170, 28, 20
_PAGE, _INK, _FAINT = (20, 23, 27), (228, 231, 235), (84, 92, 102)
_SOURCES, _FAN, _DETECTOR, _FIELD = (240, 173, 78), (70, 84, 100), (88, 166, 255), (63, 185, 80)
_MOST_SOURCES = 720
_DETECTOR_POINTS = 65
_OVERSAMPLING = 2

Point = tuple[float, float]


def geometry_picture(projections: Projections) -> bytes:
    """A PNG: the plane of rotation as CT is shown: front up, the patient's left at the right."""
    known = facts(projections)
    helical = known["geometry"]["table_feed_mm_per_turn"] is not None
    notes = _notes(known)
    plane = _plane(projections)
    height = _MARGIN + _SIDE + (_SIDE_HEIGHT if helical else 0) + _LINE * len(notes) + _MARGIN
    page = Image.new("RGB", (_SIDE + 2 * _MARGIN, height), _PAGE)
    page.paste(plane, (_MARGIN, _MARGIN))
    upper = _MARGIN + _SIDE
    if helical:
        page.paste(_side_view(projections), (_MARGIN, upper))
        upper += _SIDE_HEIGHT
    draw = ImageDraw.Draw(page)
    for number, note in enumerate(notes):
        draw.text((_MARGIN, upper + 8 + _LINE * number), note, fill=_INK, font=_font(14))
    return png_bytes(np.asarray(page))


def _plane(projections: Projections) -> Image.Image:
    """x to the right, y (to the back) downwards, in mm around the isocentre."""
    path, radius = projections.trajectory, field_of_view_radius_mm(projections)
    detector = _detector_curve(projections, 0)
    sources = np.zeros((0, 2)) if path.source_mm is None else path.source_mm[:, :2]
    starts = sources[:1] if len(sources) else _behind(projections, detector, radius)
    everything = np.vstack([sources, detector, starts, [[radius, radius], [-radius, -radius]]])
    reach = 1.12 * float(np.abs(everything).max())
    side = _SIDE * _OVERSAMPLING
    scale = side / (2 * reach)

    def at(point: npt.NDArray[np.float64]) -> Point:
        return side / 2 + float(point[0]) * scale, side / 2 + float(point[1]) * scale

    image = Image.new("RGB", (side, side), _PAGE)
    draw = ImageDraw.Draw(image)
    wide = 2 * _OVERSAMPLING
    _draw_rays(draw, at, starts, detector)
    draw.line((side / 2, 0, side / 2, side), fill=_FAINT)
    draw.line((0, side / 2, side, side / 2), fill=_FAINT)
    reach_px = radius * scale
    box = (side / 2 - reach_px, side / 2 - reach_px, side / 2 + reach_px, side / 2 + reach_px)
    draw.ellipse(box, outline=_FIELD, width=wide)
    for source in sources[:: max(1, len(sources) // _MOST_SOURCES)]:
        _dot(draw, at(source), 1.5 * _OVERSAMPLING, _SOURCES)
    draw.line([at(point) for point in detector], fill=_DETECTOR, width=3 * _OVERSAMPLING, joint="curve")
    if len(sources):
        _dot(draw, at(sources[0]), 6 * _OVERSAMPLING, _SOURCES)
    image = image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    words = ImageDraw.Draw(image)
    _draw_words(words, reach)
    _draw_legend(words, ("sources, the first large", _SOURCES) if len(sources) else ("rays, first view", _FAN))
    return image


def _draw_rays(
    draw: ImageDraw.ImageDraw,
    at: Callable[[npt.NDArray[np.float64]], Point],
    starts: npt.NDArray[np.float64],
    detector: npt.NDArray[np.float64],
) -> None:
    """The first view's rays: the fan filled, with its two edges; parallel rays as lines."""
    if len(starts) == 1:
        draw.polygon([at(starts[0]), *(at(point) for point in detector)], fill=(33, 40, 48))
        for edge in (detector[0], detector[-1]):
            draw.line((*at(starts[0]), *at(edge)), fill=_FAN, width=_OVERSAMPLING)
        return
    for start, end in list(zip(starts, detector, strict=True))[::4]:
        draw.line((*at(start), *at(end)), fill=_FAN, width=_OVERSAMPLING)


def _behind(projections: Projections, detector: npt.NDArray[np.float64], radius: float) -> npt.NDArray[np.float64]:
    """Where drawn parallel rays start: before the field of view, one per point of the detector."""
    direction = np.asarray(projections.trajectory.ray_direction)[0, :2]
    depth = detector @ direction
    return detector - (depth + 1.15 * radius)[:, None] * direction


def _detector_curve(projections: Projections, view: int) -> npt.NDArray[np.float64]:
    """Points along the middle row, [points, 2]; a parallel beam's detector is drawn behind the field of view."""
    row = projections.elements_mm(view)[projections.detector.rows // 2][:, :2]
    points = row[np.linspace(0, len(row) - 1, _DETECTOR_POINTS).round().astype(int)]
    if projections.trajectory.ray_direction is None:
        return points
    direction = projections.trajectory.ray_direction[view, :2]
    reach = 1.15 * field_of_view_radius_mm(projections)
    return points + (reach - points @ direction)[:, None] * direction


def _side_view(projections: Projections) -> Image.Image:
    """Where along the body the source was at each angle."""
    image = Image.new("RGB", (_SIDE, _SIDE_HEIGHT), _PAGE)
    draw = ImageDraw.Draw(image)
    angles = view_angles_deg(projections)
    z = np.asarray(projections.trajectory.source_mm)[:, 2] + projections.isocentre_mm[2]
    left, right, upper, lower = 64, _SIDE - 16, 34, _SIDE_HEIGHT - 40
    across = left + (angles - angles.min()) / max(float(np.ptp(angles)), 1e-9) * (right - left)
    down = lower - (z - z.min()) / max(float(np.ptp(z)), 1e-9) * (lower - upper)
    draw.rectangle((left, upper, right, lower), outline=_FAINT)
    points = list(zip(across.tolist(), down.tolist(), strict=True))
    for point in points[:: max(1, len(points) // 2000)]:
        _dot(draw, point, 1.5, _SOURCES)
    draw.text((left, 10), "source along the body (z, mm) over the angle (degrees)", fill=_INK, font=_font(14))
    for value, y in ((z.max(), upper), (z.min(), lower)):
        draw.text((left - 8, y), f"{value:.0f}", fill=_INK, font=_font(13), anchor="rm")
    draw.text((left, lower + 6), f"{angles.min():.0f}", fill=_INK, font=_font(13))
    draw.text((right, lower + 6), f"{angles.max():.0f}", fill=_INK, font=_font(13), anchor="ra")
    return image


def _draw_words(draw: ImageDraw.ImageDraw, reach: float) -> None:
    middle = _SIDE // 2
    for word, where, anchor in (
        ("front", (middle + 6, 4), "la"),
        ("back", (middle + 6, _SIDE - 4), "ld"),
        ("right", (4, middle - 4), "ld"),
        ("left", (_SIDE - 4, middle - 4), "rd"),
    ):
        draw.text(where, word, fill=_INK, font=_font(14), anchor=anchor)
    length = _round_length(reach / 2)
    end = 12 + length / (2 * reach) * _SIDE
    draw.line((12, _SIDE - 14, end, _SIDE - 14), fill=_INK, width=3)
    draw.text((12, _SIDE - 20), f"{length:g} mm", fill=_INK, font=_font(14), anchor="ld")


def _draw_legend(draw: ImageDraw.ImageDraw, first: tuple[str, tuple[int, int, int]]) -> None:
    entries = (first, ("detector, first view", _DETECTOR), ("field of view", _FIELD))
    draw.rectangle((4, 4, 200, 12 + _LINE * len(entries)), fill=_PAGE)
    for number, (word, colour) in enumerate(entries):
        top = 12 + _LINE * number
        draw.rectangle((12, top, 22, top + 10), fill=colour)
        draw.text((30, top + 5), word, fill=_INK, font=_font(14), anchor="lm")


def _notes(known: dict[str, Any]) -> Sequence[str]:
    geometry, detector = known["geometry"], known["detector"]
    notes = [
        f"{known['beam']} beam, {views_text(known)} over {geometry['arc_deg']:.1f} degrees; {detector['shape']} "
        f"detector of {detector['columns']} x {detector['rows']} elements of {detector['column_pitch_mm']:.3g} x "
        f"{detector['row_pitch_mm']:.3g} mm"
    ]
    second = f"field of view {known['field_of_view_mm']:.0f} mm"
    if geometry["source_to_isocentre_mm"] is not None:
        second += (
            f"; source to isocentre {geometry['source_to_isocentre_mm']:.1f} mm, to detector "
            f"{geometry['source_to_detector_mm']:.1f} mm"
        )
    notes.append(second)
    if geometry["table_feed_mm_per_turn"] is not None:
        notes.append(
            f"table feed {geometry['table_feed_mm_per_turn']:.2f} mm per turn, pitch {geometry['pitch']:.2f}"
        )
    return notes


def _round_length(most: float) -> float:
    power = 10.0 ** np.floor(np.log10(most))
    return float(power * max(step for step in (1, 2, 5) if step * power <= most))


def _dot(draw: ImageDraw.ImageDraw, at: Point, radius: float, colour: tuple[int, int, int]) -> None:
    draw.ellipse((at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius), fill=colour)


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.load_default(size=size)
    except TypeError:  # Pillow before 10.1
        return ImageFont.load_default()
