"""What a study says about its methods: figures per slice, and per lesion kind with confidence intervals.

The image level and the dataset level are those of arXiv 2605.31596, on sliding blocks. A sliding block is named
by its middle pixel: it counts as touching the body where that pixel lies in the body, and is positive when any of
its pixels is in the lesion. An image's score is that of its highest block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from klip_engine.errors import UsageError
from klip_engine.evaluation.statistics import Bootstrap, Indices, Interval
from klip_engine.scoring.metrics import (
    auroc,
    average_precision,
    froc_sensitivity,
    image_level_auroc,
    peaks,
    touching_blocks,
)
from klip_engine.volume import BoolArray, FloatArray

FROC_RATES = (0.5, 1.0, 2.0)
"""False regions per healthy slice."""
NOMINAL_RATES = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Of false alarms, for the calibration."""
SUPPRESSION_MM = 12.0
"""Two marked places are at least this far apart."""
REACH_MM = 6.0
"""A marked place at most this far from the lesion has found it."""
PEAKS_PER_SLICE = 30


@dataclass(frozen=True)
class SliceResult:
    """Figures of one method on one slice.

    score: of the whole slice; p_value: share of slices without anomaly that score at least as high; image_auroc:
    image level, None without a lesion; marked: scores of the marked places, highest first; found: the highest
    score of a marked place on the lesion, -inf where none is.
    """

    score: float
    p_value: float
    image_auroc: float | None
    marked: tuple[float, ...]
    found: float


def measure_slice(
    score_map: FloatArray,
    score: float,
    p_value: float,
    body: BoolArray,
    lesion: BoolArray,
    block: int,
    pixel_mm: float,
) -> SliceResult:
    """Measure one map [h, w]; lesion: all False on a healthy slice; block: side of the map's blocks in pixels."""
    places, marked = peaks(score_map, body, SUPPRESSION_MM / pixel_mm, PEAKS_PER_SLICE)
    image, found = None, -np.inf
    if lesion.any():
        try:
            image = image_level_auroc(score_map, touching_blocks(lesion, block), body)
        except UsageError:
            image = None  # the lesion fills the body: there is nothing to tell it from
        truth = np.argwhere(lesion)
        distance = np.sqrt(np.square(places[:, None] - truth[None]).sum(axis=-1).min(axis=1))
        on_lesion = marked[distance <= REACH_MM / pixel_mm]
        found = float(on_lesion.max()) if on_lesion.size else -np.inf
    return SliceResult(score, p_value, image, tuple(float(v) for v in marked), found)


def kind_figures(
    healthy: Sequence[SliceResult],
    altered: Sequence[SliceResult],
    healthy_patients: Sequence[str],
    altered_patients: Sequence[str],
    bootstrap: Bootstrap,
    originals: Sequence[SliceResult] | None = None,
) -> dict[str, Any]:
    """image_auroc, dataset_auroc, average_precision, froc, matched_auroc, raised and counts of one method on one
    lesion kind.

    Average precision is that of telling altered slices from healthy ones by their scores. originals: of each
    altered slice the same one before alteration, resampled together with it; without them matched_auroc and raised
    have no value.
    """
    scores = [np.array([one.score for one in group]) for group in (healthy, altered)]
    images = np.array([np.nan if one.image_auroc is None else one.image_auroc for one in altered])
    found = np.array([one.found for one in altered])
    before = None if originals is None else np.array([one.score for one in originals])
    marked = np.full((len(healthy), PEAKS_PER_SLICE), -np.inf)
    for row, one in zip(marked, healthy, strict=True):
        row[: len(one.marked)] = one.marked

    def figures(usual: Indices, strange: Indices) -> dict[str, float]:
        false = marked[usual]
        sensitivity = froc_sensitivity(found[strange], false[np.isfinite(false)], len(usual), FROC_RATES)
        measured = images[strange][np.isfinite(images[strange])]
        return {
            "image_auroc": float(measured.mean()) if measured.size else float("nan"),
            "dataset_auroc": auroc(scores[1][strange], scores[0][usual]),
            "average_precision": average_precision(scores[1][strange], scores[0][usual]),
            **matched_figures(scores[1][strange], None if before is None else before[strange]),
        } | {f"froc {rate:g}": value for rate, value in zip(FROC_RATES, sensitivity, strict=True)}

    intervals = bootstrap.intervals(figures, list(healthy_patients), list(altered_patients))
    return {
        "image_auroc": intervals["image_auroc"].to_dict(),
        "dataset_auroc": intervals["dataset_auroc"].to_dict(),
        "average_precision": intervals["average_precision"].to_dict(),
        "matched_auroc": intervals["matched_auroc"].to_dict(),
        "raised": intervals["raised"].to_dict(),
        "froc": {f"{rate:g}": intervals[f"froc {rate:g}"].to_dict() for rate in FROC_RATES},
        "counts": {
            "altered_slices": len(altered),
            "healthy_slices": len(healthy),
            "patients": len({*healthy_patients, *altered_patients}),
            "patients_with_lesion": len(set(altered_patients)),
        },
    }


def matched_figures(after: FloatArray, before: FloatArray | None) -> dict[str, float]:
    """Scores [n] of altered slices against those [n] of the same slices before alteration; NaN without these.

    matched_auroc: all against all, so that regions and patients are mixed alike in both groups; raised: share of
    the slices that score higher than themselves before, half for a tie.
    """
    if before is None:
        return {"matched_auroc": float("nan"), "raised": float("nan")}
    return {
        "matched_auroc": auroc(after, before),
        "raised": float(((after > before) + 0.5 * (after == before)).mean()),
    }


def calibration_figures(
    healthy: Sequence[SliceResult], patients: Sequence[str], bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """For each nominal rate the share of healthy slices with a p-value at most that, over all and per patient."""
    p_values = np.array([one.p_value for one in healthy])

    def shares(usual: Indices) -> dict[str, float]:
        return {f"{rate:g}": float((p_values[usual] <= rate + 1e-12).mean()) for rate in NOMINAL_RATES}

    intervals: dict[str, Interval] = bootstrap.intervals(shares, list(patients))
    names = np.asarray(patients, dtype=object)
    return [
        {
            "nominal": rate,
            "observed": intervals[f"{rate:g}"].to_dict(),
            "patients": {
                patient: shares(np.flatnonzero(names == patient))[f"{rate:g}"] for patient in sorted(set(patients))
            },
        }
        for rate in NOMINAL_RATES
    ]
