"""Masks of lesions or bodies from files: NumPy arrays, or whatever image SimpleITK reads."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from klip_engine.errors import InputError

BoolArray = npt.NDArray[np.bool_]


def read_masks(path: Path) -> BoolArray:
    """One mask or a stack of them, [n, height, width]; every number but 0 is inside.

    path: .npy; .npz with one array, or one that is called `mask`; an image of two or three dimensions (NRRD, NIfTI,
    PNG, ...). Raises InputError naming the file and the cure.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such file: {path}; give a mask as .npz, .npy or an image")
    values = _from_numpy(path) if path.suffix.lower() in (".npz", ".npy") else _from_image(path)
    if values.dtype.kind not in "biuf":
        raise InputError(f"the mask {path} holds {values.dtype} and not numbers")
    if values.ndim not in (2, 3) or not values.size:
        raise InputError(
            f"the mask {path} has the shape {values.shape} and not [rows, columns] or [n, rows, columns]"
        )
    if not np.isfinite(values).all():
        raise InputError(f"the mask {path} holds NaN or infinite values; write 0 outside and 1 inside")
    return np.asarray(values.reshape(-1, *values.shape[-2:]) != 0)


def _from_numpy(path: Path) -> npt.NDArray[Any]:
    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return stored
        with stored:
            names = list(stored)
            if len(names) != 1 and "mask" not in names:
                held = ", ".join(names) or "nothing"
                raise InputError(f"the mask {path} holds {held}; keep one array in it or call one 'mask'")
            array: npt.NDArray[Any] = stored["mask" if "mask" in names else names[0]]
            return array
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"the mask {path} cannot be read: it is damaged or not a plain NumPy array") from error


def _from_image(path: Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    except RuntimeError as error:
        raise InputError(f"the mask {path} cannot be read: it is damaged or not an image") from error
