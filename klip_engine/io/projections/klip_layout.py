"""The layout of klip-projections/1, named once for reading and writing; docs/projections.md describes it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

SCHEMA = "klip-projections/1"
FRAME = "LPS mm, isocentre at the origin"
DATA = ("projections", "flat", "dark", "weights")
"""Arrays at the top; only the first must be there."""
VECTORS = ("source_mm", "ray_dir", "det_center_mm", "det_u", "det_v")
"""Arrays of the group /geometry: [view, 3]; source_mm, or ray_dir for parallel beams."""


def digest(arrays: Iterable[tuple[str, npt.NDArray[np.generic]]]) -> str:
    """SHA-256 over the arrays in alphabetical order of their paths: path, dtype, shape, then the values.

    The line "/path dtype shape\\n", for example "/projections <f4 [720, 1, 736]", then the bytes, little endian,
    last axis fastest.
    """
    total = hashlib.sha256()
    for name, values in sorted(arrays, key=lambda pair: pair[0]):
        stored = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        total.update(f"{name} {stored.dtype.str} {list(stored.shape)}\n".encode())
        total.update(stored.data)
    return total.hexdigest()
