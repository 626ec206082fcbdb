"""Photographs from PNG, JPEG and TIFF files, refused where anything would be lost silently."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from klip_engine.errors import InputError
from klip_engine.io.loaded import LoadedPhotograph
from klip_engine.photograph import Photograph

FORMATS = ("PNG", "JPEG", "TIFF")
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    SyntaxError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow's readers raise on damaged files."""
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}
"""Pillow's modes that are grey or RGB without loss, and as which."""


def read_photograph(path: Path) -> LoadedPhotograph:
    """Read a grey or RGB picture of 8 bits per value, upright as its EXIF orientation says.

    Raises InputError with one sentence that names the file and the cure: no such file, not a picture, damaged,
    16 bits, transparency, other colour spaces, several pages.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no such file: {path}; check the spelling")
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check(image, path)
            file_format = str(image.format)
            upright = ImageOps.exif_transpose(image)
            pixels = np.asarray(upright.convert(_MODES[image.mode]))
    except (UnidentifiedImageError, IsADirectoryError) as error:
        raise InputError(
            f"{path} is not a PNG, JPEG or TIFF picture, or is damaged; the prior is of pictures: give one, or "
            "name a prior of CT for a CT"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has too many pixels to be a photograph; give a smaller one") from error
    except _DAMAGE as error:
        raise InputError(f"{path} cannot be read: it is damaged or incomplete; export it again") from error
    photograph = Photograph(pixels.reshape(*pixels.shape[:2], -1))
    height, width, channels = photograph.pixels.shape
    description = {
        "format": file_format,
        "files": 1,
        "size": [width, height],
        "channels": channels,
        "slices": 1,
        "file": path.name,
    }
    return LoadedPhotograph(photograph, description)


def _check(image: Image.Image, path: Path) -> None:
    if getattr(image, "n_frames", 1) > 1:
        raise InputError(f"{path} holds several pictures; save one of them as a file of its own")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        raise InputError(f"{path} has transparency (an alpha channel); save it without, as grey or RGB")
    # Pillow reads 16-bit RGB as 8-bit without a word: the raw mode of the file tells.
    if image.mode.startswith(("I", "F")) or any("16" in str(part[3]) for part in _parts(image)):
        raise InputError(f"{path} has more than 8 bits per value; save it with 8 bits, as grey or RGB")
    if image.mode not in _MODES:
        raise InputError(f"{path} is neither grey nor RGB ({image.mode}); convert it to one of them")


def _parts(image: Image.Image) -> Sequence[tuple[Any, ...]]:
    """How the file holds its pixels, before they are decoded: (codec, box, offset, raw mode) each."""
    parts: Sequence[tuple[Any, ...]] = getattr(image, "tile", ())
    return parts
