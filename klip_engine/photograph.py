"""Photographs, and other pictures without Hounsfield units: one slice, pixels in the place of millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from klip_engine.errors import InputError
from klip_engine.volume import BoolArray, FloatArray, Geometry


@dataclass(frozen=True)
class Photograph:
    """Pixels uint8 [height, width, channels], one channel (grey) or three (RGB).

    Priors see x = value / 127.5 - 1, in [-1, 1]. Raises InputError for an array of another kind.
    """

    pixels: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] not in (1, 3):
            raise InputError(
                f"a photograph is uint8 [height, width, 1 or 3], not {self.pixels.dtype} {self.pixels.shape}"
            )

    @property
    def geometry(self) -> Geometry:
        """One slice of pixels of side 1 from (0, 0) at the top left: places are (column, row, 0)."""
        return Geometry((self.pixels.shape[1], self.pixels.shape[0], 1), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class WorkingPhotograph:
    """A photograph as the method sees it, beside `WorkingVolume`: one slice, all of it worth looking at."""

    photograph: Photograph
    source_slices: tuple[tuple[int, int], ...] | None = ((0, 1),)
    cut_off: float = 0.0

    @property
    def geometry(self) -> Geometry:
        """As of the photograph."""
        return self.photograph.geometry

    @property
    def body(self) -> BoolArray:
        """True everywhere, [1, height, width]."""
        return np.ones((1, *self.photograph.pixels.shape[:2]), dtype=bool)

    @property
    def measured(self) -> FloatArray:
        """Values from 0 to 255, [1, height, width, channels]."""
        return self.photograph.pixels[None].astype(np.float32)

    @property
    def images(self) -> FloatArray:
        """What a prior sees, [1, channels, height, width] in [-1, 1]."""
        return np.ascontiguousarray(np.moveaxis(self.measured / np.float32(127.5) - 1, -1, 1))

    @staticmethod
    def values_of(images: FloatArray) -> FloatArray:
        """Images of a prior [n, channels, height, width] as values, 0 to 255 where they lie in [-1, 1]:
        [n, height, width, channels]."""
        return np.moveaxis(np.float32(127.5) * (images + 1), 1, -1)


def fit_prior(
    photograph: Photograph, name: str, image_shape: tuple[int, int], channels: int, prior: str
) -> WorkingPhotograph:
    """The photograph for a prior of images (height, width); nothing is resized or recoloured.

    Raises InputError naming both where they differ; `name` is how the user calls the photograph.
    """
    found = photograph.pixels.shape
    if found != (*image_shape, channels):
        raise InputError(
            f"{name} has {found[1]} x {found[0]} pixels ({_colours(found[2])}), but the prior '{prior}' is of "
            f"{image_shape[1]} x {image_shape[0]} pixels ({_colours(channels)}): resize or convert the picture, "
            "or name another prior"
        )
    return WorkingPhotograph(photograph)


def _colours(channels: int) -> str:
    return "grey" if channels == 1 else "RGB" if channels == 3 else f"{channels} channels"
