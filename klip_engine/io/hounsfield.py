"""Refuses what cannot be a CT in Hounsfield units, and clips the padding outside the field of view."""

from __future__ import annotations

import numpy as np

from klip_engine.errors import InputError
from klip_engine.volume import FloatArray, Geometry

LOWEST_HU = -1024.0
"""Scanners fill what lies outside the field of view with -1024, -2000, -3024, ...; all become this."""

_HIGHEST_HU = 32767.0
_FEWEST_PIXELS = 32
_LONGEST_MM = 5000.0
_DIRECTION_TOLERANCE = 1e-3


def check_geometry(geometry: Geometry, name: str) -> None:
    """Raise InputError for spacings, axes or sizes that no CT slice has; `name` is how the user calls it."""
    if not all(np.isfinite(v) and v > 0 for v in geometry.spacing):
        raise InputError(
            f"{name} has a voxel spacing of {_times(geometry.spacing)} mm: it must be above zero; "
            "write the file again with its true spacing"
        )
    extent = max(length * count for length, count in zip(geometry.spacing, geometry.size, strict=True))
    if extent > _LONGEST_MM:
        raise InputError(
            f"{name} is {extent / 1000:.1f} m long by its voxel spacing of {_times(geometry.spacing)} mm, which no "
            "patient is; write the file again with its true spacing"
        )
    axes = np.asarray(geometry.direction).reshape(3, 3)
    if not np.allclose(axes.T @ axes, np.eye(3), atol=_DIRECTION_TOLERANCE):
        raise InputError(
            f"the axes of {name} are not perpendicular unit vectors (a sheared direction matrix); "
            "resample it onto a rectangular grid, or read the original DICOM series, whose tilt is corrected"
        )
    if min(geometry.size[:2]) < _FEWEST_PIXELS:
        raise InputError(
            f"the slices of {name} have {geometry.size[0]} x {geometry.size[1]} pixels; "
            f"at least {_FEWEST_PIXELS} x {_FEWEST_PIXELS} are needed"
        )


def check_and_clip_hu(hu: FloatArray, name: str) -> None:
    """Check that [z, y, x] values can be Hounsfield units and raise those below -1024 to -1024, in place.

    Raises InputError for NaN or infinity, a constant image, values beyond 16 bits, normalised values,
    grey-scale pictures and raw detector numbers without rescale. Works slice by slice: no second array.
    """
    low, high, has_negative = np.inf, -np.inf, False
    for number, plane in enumerate(hu, start=1):
        lowest, highest = float(plane.min()), float(plane.max())
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            raise InputError(
                f"{name} holds values that are not numbers (NaN or infinity), first in slice {number} of "
                f"{len(hu)}; replace them with -1024 where nothing was measured"
            )
        low, high = min(low, lowest), max(high, highest)
        has_negative = has_negative or bool(((plane >= LOWEST_HU) & (plane < 0)).any())
    _check_range(low, high, has_negative, name)
    if low < LOWEST_HU:
        for plane in hu:
            np.maximum(plane, np.float32(LOWEST_HU), out=plane)


def _check_range(low: float, high: float, has_negative: bool, name: str) -> None:
    span = f"the values of {name} lie between {low:g} and {high:g}"
    if low == high:
        raise InputError(f"every voxel of {name} has the value {low:g}: this is not a CT image")
    if high > _HIGHEST_HU or low < -_HIGHEST_HU - 1:
        raise InputError(f"{span}, which cannot be Hounsfield units; apply the rescale slope and intercept")
    if low > -10 and high < 10:
        raise InputError(f"{span}: they look normalised; rescale them to Hounsfield units (air -1000, water 0)")
    if has_negative:
        return
    if high <= 255:
        raise InputError(
            f"{span}: this looks like a picture or a label map, not Hounsfield units; "
            "give the CT itself, rescaled to HU (air -1000, water 0), or for a photograph a prior of photographs"
        )
    raise InputError(
        f"{span} with nothing between -1024 and 0: these look like raw numbers or another modality; "
        "if it is a CT, subtract 1024 (or apply its rescale intercept) to get Hounsfield units"
    )


def _times(values: tuple[float, ...]) -> str:
    return " x ".join(f"{v:g}" for v in values)
