"""The tables of docs/benchmarks.md from what benchmarks/detection.py wrote, and its misses one by one.

    python benchmarks/detection_tables.py runs/detection-validation-default.json [--score klip-multiscale]

Missed: lesions whose slice scores below the healthy slices' 80th percentile, or whose image-level AUROC is below
0.9.
Marked: healthy slices with a p-value of at most 0.1.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from klip_engine.evaluation.document import bracketed

KINDS = ("star", "tumor", "nodule", "metal", "effusion")
LEVELS = ("image_auroc", "dataset_auroc", "matched_auroc")
RATES = (0.01, 0.05, 0.1, 0.2)


def figures(document: dict[str, Any]) -> str:
    """Every method, image / dataset / matched."""
    results = document["results"]
    kinds = [kind for kind in KINDS if kind in results]
    rows = [["score", *kinds]]
    for method in results[kinds[0]]:
        cells = [" / ".join(_number(results[kind][method][level]["value"]) for level in LEVELS) for kind in kinds]
        rows.append([method, *cells])
    return _table(rows)


def intervals(document: dict[str, Any], score: str) -> str:
    """One method with its intervals and its free-response sensitivity."""
    rows = [["", "image level", "dataset level", "matched", "raised", "average precision", "found at 0.5 / 1 / 2"]]
    for kind in KINDS:
        if kind in document["results"]:
            one = document["results"][kind][score]
            cells = [bracketed(one[level]) for level in LEVELS]
            found = " / ".join(f"{one['froc'][rate]['value']:.2f}" for rate in ("0.5", "1", "2"))
            rows.append([kind, *cells, f"{one['raised']['value']:.2f}", bracketed(one["average_precision"]), found])
    return _table(rows)


def false_alarms(document: dict[str, Any], score: str) -> str:
    """Share of healthy slices with a p-value of at most each rate, over all patients and for each."""
    healthy = [one for one in document["slices"] if one["kind"] == "healthy"]
    groups = {"all": healthy} | {
        file: [one for one in healthy if one["file"] == file] for file in sorted({one["file"] for one in healthy})
    }
    rows = [["accepted rate", *(f"{rate:g}" for rate in RATES)]]
    for name, slices in groups.items():
        p_values = np.array([one["scores"][score]["p_value"] for one in slices])
        rows.append([f"{name} ({len(slices)})", *(f"{(p_values <= rate).mean():.2f}" for rate in RATES)])
    return _table(rows)


def misses(document: dict[str, Any], score: str) -> str:
    """What went wrong, slice by slice."""
    slices = document["slices"]
    healthy = np.array([one["scores"][score]["score"] for one in slices if one["kind"] == "healthy"])
    rows = [["slice", "height (mm)", "diameters (mm)", "contrast (HU)", "above healthy slices", "image level"]]
    for one in slices:
        found, lesion = one["scores"][score], one["lesion"]
        below = float((healthy < found["score"]).mean())
        place = [f"{one['patient']} {one['kind']}", f"{one['position_mm']:g}"]
        if lesion and (below < 0.8 or found["image_auroc"] < 0.9):
            size = " x ".join(f"{length:.0f}" for length in lesion["diameters_mm"])
            rows.append(
                [*place, size, f"{lesion['contrast_hu']:.0f}", f"{below:.2f}", f"{found['image_auroc']:.3f}"]
            )
        if one["kind"] == "healthy" and found["p_value"] <= 0.1:
            rows.append([*place, "", "", f"{below:.2f}", f"marked, p {found['p_value']:.3f}"])
    return _table(rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(rows: list[list[str]]) -> str:
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path)
    parser.add_argument("--score", default="klip-multiscale")
    arguments = parser.parse_args()
    document = json.loads(arguments.json.read_text(encoding="utf-8"))
    of_score = (part(document, arguments.score) for part in (intervals, false_alarms, misses))
    print("\n\n".join((figures(document), *of_score)))


if __name__ == "__main__":
    main()
