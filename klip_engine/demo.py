"""The CT that comes with the engine, and whether its inserted lesion was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from klip_engine.detection import Detection

_FOLDER = Path(__file__).resolve().parent / "data" / "demo"


def demo_ct() -> Path:
    """A real CT of a patient the default prior has not seen, with one lesion inserted by this project."""
    return _FOLDER / "demo_ct.nrrd"


def demo_truth() -> dict[str, Any]:
    """What was inserted: kind, centre_lps_mm, diameters_mm, slice_range."""
    truth: dict[str, Any] = json.loads((_FOLDER / "demo_truth.json").read_text(encoding="utf-8"))
    return truth


def demo_verdict(detection: Detection) -> str:
    """One sentence that compares the findings with the inserted lesion."""
    truth = demo_truth()
    centre, radius = np.asarray(truth["centre_lps_mm"]), max(truth["diameters_mm"]) / 2
    marked = np.argwhere(detection.regions > 0)
    offset = detection.geometry.to_lps(marked[:, ::-1]) - centre
    inside = marked[np.linalg.norm(offset, axis=1) <= radius]
    labels = sorted({int(detection.regions[tuple(voxel)]) for voxel in inside})
    lesion = f"The inserted {truth['kind']} at LPS ({', '.join(f'{v:.0f}' for v in centre)}) mm"
    if labels:
        names = ", ".join(str(label) for label in labels)
        return f"{lesion} was marked: finding {names} of {len(detection.findings)}."
    return f"{lesion} was not marked."
