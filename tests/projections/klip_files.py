"""klip-projections/1 files written with h5py alone, as docs/projections.md describes them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

VIEWS, ROWS, COLUMNS = 9, 2, 12


def contents() -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Arrays by path, and root attributes, of a small fan scan of counts with flat and dark."""
    angle = np.linspace(0, 2 * np.pi, VIEWS, endpoint=False)
    outward = np.stack([-np.sin(angle), np.cos(angle), 0 * angle], axis=1)
    counts = np.random.default_rng(3).uniform(200, 900, (VIEWS, ROWS, COLUMNS)).astype(np.float32)
    arrays = {
        "/projections": counts,
        "/flat": np.full((ROWS, COLUMNS), 1050, np.float32),
        "/dark": np.full((ROWS, COLUMNS), 50, np.float32),
        "/geometry/source_mm": -600 * outward,
        "/geometry/det_center_mm": 400 * outward,
        "/geometry/det_u": np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1),
        "/geometry/det_v": np.tile([0.0, 0.0, 1.0], (VIEWS, 1)),
    }
    attributes = {
        "schema": "klip-projections/1",
        "frame": "LPS mm, isocentre at the origin",
        "beam": "fan",
        "detector_shape": "flat",
        "column_pitch_mm": 4.0,
        "row_pitch_mm": 4.0,
        "central_element": [5.75, 0.5],
        "mu_water_per_mm": 0.0192,
        "electronic_sigma": 5.0,
    }
    return arrays, attributes


def write(
    path: Path, arrays: dict[str, np.ndarray], attributes: dict[str, object], quantity: str | None = "counts"
):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
        file.attrs.update(attributes)
        if quantity is not None:
            file["projections"].attrs["quantity"] = quantity
    return path
