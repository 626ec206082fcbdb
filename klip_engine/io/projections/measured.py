"""From what a detector counts to line integrals and their weights; the noise model is `operators/noise.py`'s.

    counts c = raw - dark,  air a = flat - dark,  p = -log(max(c, 1) / a),  weight = c^2 / (c + sigma_e^2)

The weight is the inverse variance of p to first order for c photons with electronic noise of deviation sigma_e
photons. Counts that are no photons are turned into photons with I0, the photons behind `air`. The noise of flat and
dark themselves is not counted: they are means of many frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from klip_engine.errors import InputError
from klip_engine.volume import BoolArray, FloatArray

Quantity = Literal["line_integral", "counts", "transmission"]
QUANTITIES: tuple[Quantity, ...] = ("line_integral", "counts", "transmission")
SMALLEST_COUNT = 1.0
"""Photons; fewer are raised to it, or their logarithm would not exist."""
_LARGEST_LINE_INTEGRAL = 50.0
"""Behind more, one of 1e21 photons arrives: what is larger is no line integral."""
_LARGEST_WEIGHT = 1e12
"""Inverse variances are photons, and no ray has more."""
_MEAN_OF_AIR = -0.1
"""Noise and flat fields let line integrals of air stray below 0, but not on the average."""


@dataclass(frozen=True)
class LineIntegrals:
    """values, weights [view, row, column] (None: unknown), and what the user should know."""

    values: FloatArray
    weights: FloatArray | None
    notices: tuple[str, ...] = ()


def line_integrals(
    values: FloatArray,
    quantity: Quantity,
    name: str,
    *,
    flat: FloatArray | None = None,
    dark: FloatArray | None = None,
    weights: FloatArray | None = None,
    i0: float | npt.NDArray[np.floating] | None = None,
    electronic_sigma: float | None = None,
    smallest_count: float = SMALLEST_COUNT,
) -> LineIntegrals:
    """Line integrals and weights of [view, row, column] values; `values` is overwritten.

    flat, dark: [row, column] or one per view; weights: the file's own, which win; i0: photons behind a
    transmission of 1, a number or an array that broadcasts. Elements without a usable flat or of weight 0 are bad:
    weight 0, value 0. Raises InputError where NaN or infinity stands in an element not marked so, for counts with
    neither flat nor i0, and for values and weights that none can have.
    """
    air = _air(flat, dark, quantity, i0, name)
    bad = _bad(values, air, weights)
    _refuse_holes(values, bad, name)
    notices = []
    if quantity == "line_integral":
        values[~np.isfinite(values)] = 0
    else:
        raised = _take_logarithm(values, air, dark, bad, i0, smallest_count)
        if raised:
            share = 100 * raised / values.size
            notices.append(f"{raised} counts ({share:.2g} %) were below {smallest_count:g} and were raised to it")
        values[bad] = 0
    _refuse_impossible(values, bad, quantity, name)
    if weights is None:
        photons = air if i0 is None else i0
        weights = None if photons is None else _weights(values, photons, electronic_sigma or 0.0)
    if weights is None and bad.any():
        weights = np.ones(values.shape, np.float32)
    if weights is not None:
        weights[bad] = 0
        if not (weights <= _LARGEST_WEIGHT).all():
            raise InputError(
                f"{name} has weights (or counts in air, or I0) of more than {_LARGEST_WEIGHT:.0e}: weights are "
                "inverse variances of line integrals, for a count the count itself"
            )
    if bad.any():
        notices.append(f"{int(bad.sum())} elements ({100 * bad.mean():.2g} %) are bad and count for nothing")
    return LineIntegrals(values, weights, tuple(notices))


def _air(
    flat: FloatArray | None,
    dark: FloatArray | None,
    quantity: Quantity,
    i0: float | npt.NDArray[np.floating] | None,
    name: str,
) -> FloatArray | None:
    if quantity != "counts":
        return None
    if flat is not None:
        air: FloatArray = flat - dark if dark is not None else flat
        return air
    if i0 is None:
        raise InputError(
            f"{name} holds counts but neither a flat field nor I0: without the counts in air there are no line "
            "integrals; add /flat or the attribute I0"
        )
    return np.asarray(i0, np.float32)


def _bad(values: FloatArray, air: FloatArray | None, weights: FloatArray | None) -> BoolArray:
    bad = np.zeros(values.shape, np.bool_)
    if air is not None:
        bad |= ~(np.isfinite(air) & (air > 0))
    if weights is not None:
        bad |= weights == 0
    return bad


def _refuse_holes(values: FloatArray, bad: BoolArray, name: str) -> None:
    holes = ~np.isfinite(values) & ~bad
    if holes.any():
        view, row, column = np.argwhere(holes)[0]
        raise InputError(
            f"{name} holds values that are not numbers (NaN or infinity), first in view {view}, row {row}, column "
            f"{column}; give these elements the weight 0 in /weights"
        )


def _refuse_impossible(values: FloatArray, bad: BoolArray, quantity: Quantity, name: str) -> None:
    """Raise InputError for what is called by the wrong name: counts as line integrals, transmissions as counts."""
    wrong = (np.abs(values) > _LARGEST_LINE_INTEGRAL) & ~bad
    if wrong.any():
        view, row, column = np.argwhere(wrong)[0]
        raise InputError(
            f"{name} holds a line integral of {values[view, row, column]:.3g} in view {view}, row {row}, column "
            f"{column}, and none is beyond {_LARGEST_LINE_INTEGRAL:g}: are these counts or transmissions? Bad "
            "elements need the weight 0"
        )
    mean = float(values.mean(where=~bad, dtype=np.float64)) if not bad.all() else 0.0
    if mean < _MEAN_OF_AIR:
        cure = "their sign is turned" if quantity == "line_integral" else "flat field or I0 are too low"
        raise InputError(f"the line integrals of {name} are {mean:.2g} on the average, below that of air: {cure}")


def _take_logarithm(
    values: FloatArray,
    air: FloatArray | None,
    dark: FloatArray | None,
    bad: BoolArray,
    i0: float | npt.NDArray[np.floating] | None,
    smallest_count: float,
) -> int:
    """Counts or transmissions to line integrals in place; how many good ones had to be raised."""
    if air is not None:
        if dark is not None:
            values -= dark
        values /= np.where(np.isfinite(air) & (air > 0), air, np.float32(1))
    photons = air if i0 is None else i0
    floor = np.float32(1e-6) if photons is None else np.float32(smallest_count) / np.asarray(photons, np.float32)
    floor = np.where(np.isfinite(floor) & (floor > 0), floor, np.float32(1))
    values[bad] = 1
    low = values < floor
    np.maximum(values, floor, out=values)
    np.log(values, out=values)
    np.negative(values, out=values)
    return int((low & ~bad).sum())


def _weights(
    values: FloatArray, photons: FloatArray | float | npt.NDArray[np.floating], sigma: float
) -> FloatArray:
    counts: FloatArray = np.exp(-values) * np.asarray(photons, np.float32)
    if sigma == 0:
        return counts
    return (counts * (counts / (counts + np.float32(sigma) ** 2))).astype(np.float32)
