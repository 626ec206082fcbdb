"""Masks of lesions or bodies from files: NumPy arrays, or whatever image SimpleITK reads."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from klip_engine.errors import InputError
from klip_engine.io.artifacts import ARCHIVE_DAMAGE

BoolArray = npt.NDArray[np.bool_]

_MOST_PIXELS = 2**28


def read_masks(path: Path, most_pixels: int = _MOST_PIXELS) -> BoolArray:
    """One mask or a stack of them, [n, height, width]; every number but 0 is inside.

    path: .npy; .npz with one array, or one that is called `mask`; an image of two or three dimensions (NRRD, NIfTI,
    PNG, ...). most_pixels: n x height x width that are possible; a file that states more is refused before its
    numbers are read. Raises InputError naming the file and the cure.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such file: {path}; give a mask as .npz, .npy or an image")
    is_numpy = path.suffix.lower() in (".npz", ".npy")
    values = _from_numpy(path, most_pixels) if is_numpy else _from_image(path, most_pixels)
    if not np.isfinite(values).all():
        raise InputError(f"the mask {path} holds NaN or infinite values; write 0 outside and 1 inside")
    return np.asarray(values.reshape(-1, *values.shape[-2:]) != 0)


def _from_numpy(path: Path, most_pixels: int) -> npt.NDArray[Any]:
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as stream:
                return _array(stream, path, most_pixels)
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            if len(names) != 1 and "mask" not in names:
                held = ", ".join(names) or "nothing"
                raise InputError(f"the mask {path} holds {held}; keep one array in it or call one 'mask'")
            with archive.open(f"{'mask' if 'mask' in names else names[0]}.npy") as stream:
                return _array(stream, path, most_pixels)
    except ARCHIVE_DAMAGE as error:
        raise InputError(f"the mask {path} cannot be read: it is damaged or not a plain NumPy array") from error


def _array(stream: IO[bytes], path: Path, most_pixels: int) -> npt.NDArray[Any]:
    """A stored array whose header was looked at before its numbers."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, column_major, dtype = readers[np.lib.format.read_magic(stream)](stream)
    if dtype.hasobject:
        raise ValueError("Python objects are never loaded")
    _check(path, shape, dtype, most_pixels)
    values = np.frombuffer(stream.read(math.prod(shape) * dtype.itemsize), dtype=dtype)
    return values.reshape(shape, order="F" if column_major else "C")


def _from_image(path: Path, most_pixels: int) -> npt.NDArray[Any]:
    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        if reader.GetNumberOfComponents() != 1:
            raise InputError(f"the mask {path} has {reader.GetNumberOfComponents()} components; save it as grey")
        shape = tuple(reversed(reader.GetSize()))
        _check(path, shape, np.dtype(np.uint8), most_pixels)
        return np.asarray(sitk.GetArrayFromImage(reader.Execute()))
    except RuntimeError as error:
        raise InputError(f"the mask {path} cannot be read: it is damaged or not an image") from error


def _check(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], most_pixels: int) -> None:
    """Raise InputError for what a file states and no mask is."""
    if dtype.kind not in "biuf":
        raise InputError(f"the mask {path} holds {dtype} and not numbers")
    if len(shape) not in (2, 3) or 0 in shape:
        raise InputError(f"the mask {path} has the shape {shape} and not [rows, columns] or [n, rows, columns]")
    if math.prod(shape) > most_pixels:
        raise InputError(
            f"the mask {path} has the shape {shape}, more than the {most_pixels} pixels possible here; give one "
            "mask for each image"
        )
