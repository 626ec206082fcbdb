"""A score map as a picture: the map, its colour scale, and what both are, in one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from klip_engine.io.report_pictures import OTHER_FINDINGS, png_bytes, score_rgb

_Number = TypeVar("_Number", bound=np.generic)

_MAP_SIDE = 512
_MARGIN, _BAR, _LABELS, _LINE = 16, 20, 92, 20
_PAGE, _INK = (20, 23, 27), (228, 231, 235)


def score_picture(
    score_map: npt.NDArray[np.float32],
    top: float,
    *,
    title: str,
    notes: Sequence[str] = (),
    block: int = 1,
    mask: npt.NDArray[np.bool_] | None = None,
) -> bytes:
    """A PNG of a map of blocks [rows, columns] on a perceptually uniform scale from 0 to `top`, linear.

    title: above it; notes: lines below it; block: side of a block in pixels; mask [rows * block, columns * block]:
    a lesion to outline.
    """
    zoom = max(1, round(_MAP_SIDE / (max(score_map.shape) * block)))
    coloured = score_rgb(_enlarged(score_map, block * zoom), top)
    if mask is not None:
        coloured[_outline(_enlarged(mask, zoom))] = OTHER_FINDINGS
    height, width = coloured.shape[:2]
    upper = _MARGIN + _LINE
    size = (_MARGIN + width + _MARGIN + _BAR + _LABELS, upper + height + _MARGIN + _LINE * len(notes))
    page = Image.new("RGB", size, _PAGE)
    draw = ImageDraw.Draw(page)
    font = picture_font()
    draw.text((_MARGIN, _MARGIN // 2), title, fill=_INK, font=font)
    page.paste(Image.fromarray(coloured), (_MARGIN, upper))
    left = _MARGIN + width + _MARGIN
    scale = np.repeat(np.linspace(top, 0, height, dtype=np.float32)[:, None], _BAR, axis=1)
    page.paste(Image.fromarray(score_rgb(scale, top)), (left, upper))
    for tick in range(5):
        y = upper + round((height - 1) * (1 - tick / 4))
        draw.line((left + _BAR, y, left + _BAR + 5, y), fill=_INK)
        draw.text((left + _BAR + 9, y - 7), f"{top * tick / 4:.3g}", fill=_INK, font=font)
    for number, note in enumerate(notes):
        draw.text((_MARGIN, upper + height + _MARGIN // 2 + _LINE * number), note, fill=_INK, font=font)
    return png_bytes(np.asarray(page))


def _enlarged(image: npt.NDArray[_Number], factor: int) -> npt.NDArray[_Number]:
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels of a mask with a neighbour outside it."""
    wide = np.pad(mask, 1)
    inner = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return np.asarray(wide[1:-1, 1:-1] & ~inner)


def picture_font(size: int = 13) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font of Pillow itself, so that pictures need none of the system."""
    try:
        return ImageFont.load_default(size=size)
    except (TypeError, ImportError):  # a Pillow before 10.1, or without FreeType: its one small font
        return ImageFont.load_default()
