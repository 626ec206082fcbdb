"""What a condition did to detection: accuracy by kind, beside the matched case, false alarms and errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.mismatch.detecting import DetectedScan
from benchmarks.mismatch.study import FineStudy
from klip_engine.evaluation.measures import SliceResult, measure_slice
from klip_engine.evaluation.statistics import Bootstrap, Indices
from klip_engine.evaluation.study import HEALTHY
from klip_engine.scoring.metrics import auroc
from klip_engine.scoring.score_map import slice_maxima

RATES = (0.05, 0.1, 0.2)
_BOOTSTRAP = Bootstrap(resamples=1000)


@dataclass(frozen=True)
class Measured:
    """kinds: of the slices that were done; results: of each; the rest is of the healthy slices."""

    kinds: tuple[str, ...]
    results: tuple[SliceResult, ...]
    rmse_hu: float
    first_rmse_hu: float
    scan_factor: float
    notices: tuple[str, ...]
    null: dict[str, Any]

    def of(self, kind: str) -> list[SliceResult]:
        """The results of one kind of slices."""
        return [one for one, name in zip(self.results, self.kinds, strict=True) if name == kind]


def measured(study: FineStudy, scan: DetectedScan) -> Measured:
    """Scores against the truth; the scan's level is that of its healthy slices, as in `klip-engine evaluate`."""
    count = len(scan.maps)
    kinds = tuple(case.kind for case in study.cases[:count])
    healthy = np.array([kind == HEALTHY for kind in kinds])
    body, pixel = scan.body[:count], scan.geometry.spacing[0]
    maxima = slice_maxima(scan.maps, body)
    null = scan.null.adapted_to(maxima[healthy].tolist())
    lesions = study.lesions(scan.geometry)[:count] & body
    results = tuple(
        measure_slice(
            scan.maps[n], float(maxima[n]), null.p_value(float(maxima[n])), body[n], lesions[n], scan.block, pixel
        )
        for n in range(count)
    )
    truth = study.truth(scan.geometry)[:count]
    inside = body & healthy[:, None, None]
    errors = [
        float(np.sqrt(((hu[:count] - truth)[inside] ** 2).mean())) for hu in (scan.reconstruction, scan.first)
    ]
    return Measured(kinds, results, errors[0], errors[1], null.scan_factor, scan.notices, null.identity())


def figures(this: Measured, reference: Measured | None) -> dict[str, Any]:
    """Plain data; differences from the reference are of the same slices, resampled together."""
    healthy = this.of(HEALTHY)
    found: dict[str, Any] = {
        "rmse_hu": round(this.rmse_hu, 2),
        "first_image_rmse_hu": round(this.first_rmse_hu, 2),
        "scan_factor": round(this.scan_factor, 3),
        "healthy_marked": {f"{rate:g}": float(np.mean([one.p_value <= rate for one in healthy])) for rate in RATES},
        "notices": list(this.notices),
        "null": this.null,
        "kinds": {},
    }
    for kind in dict.fromkeys(this.kinds):
        if kind == HEALTHY:
            continue
        altered = this.of(kind)
        entry = _intervals([(healthy, altered)])
        if reference is not None and len(reference.of(kind)) == len(altered):
            other = _intervals([(healthy, altered), (reference.of(HEALTHY), reference.of(kind))])
            entry |= {f"{level}_difference": interval for level, interval in other.items()}
        found["kinds"][kind] = entry | {"lesions": len(altered), "healthy": len(healthy)}
    return found


def _intervals(pairs: Sequence[tuple[list[SliceResult], list[SliceResult]]]) -> dict[str, Any]:
    """Image and dataset level AUROC of the first pair (healthy, altered), less that of the second where there is
    one, with bootstrap intervals over slices."""
    parts = [
        (
            np.array([one.score for one in healthy]),
            np.array([one.score for one in altered]),
            np.array([np.nan if one.image_auroc is None else one.image_auroc for one in altered]),
        )
        for healthy, altered in pairs
    ]

    def statistics(usual: Indices, strange: Indices) -> dict[str, float]:
        levels = [
            (float(np.nanmean(images[strange])), auroc(high[strange], low[usual])) for low, high, images in parts
        ]
        image, dataset = levels[0] if len(levels) == 1 else np.subtract(levels[0], levels[1])
        return {"image": float(image), "dataset": float(dataset)}

    healthy, altered = pairs[0]
    found = _BOOTSTRAP.intervals(statistics, ["one"] * len(healthy), ["one"] * len(altered))
    return {level: [round(v, 4) for v in (i.value, i.low, i.high) if v is not None] for level, i in found.items()}
