"""The figures of all conditions as one table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.mismatch.figures import RATES


def table(rows: Mapping[str, tuple[str, dict[str, Any]]]) -> str:
    """Markdown: one line per condition; name -> (words, figures)."""
    kinds = list(dict.fromkeys(kind for _, found in rows.values() for kind in found["kinds"]))
    head = [
        "condition",
        *kinds,
        "RMSE (HU)",
        f"marked at {', '.join(f'{rate:g}' for rate in RATES)}",
        "level",
        "said",
    ]
    lines = [head, ["---"] * len(head)]
    for words, found in rows.values():
        cells = [_cell(found["kinds"].get(kind)) for kind in kinds]
        marked = ", ".join(f"{found['healthy_marked'][f'{rate:g}']:.2f}" for rate in RATES)
        said = "yes" if found["notices"] else "-"
        lines.append([words, *cells, f"{found['rmse_hu']:.1f}", marked, f"{found['scan_factor']:.2f}", said])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(found: dict[str, Any] | None) -> str:
    """Image / dataset level, and what they lost against the matched case."""
    if found is None:
        return ""
    text = f"{found['image'][0]:.3f} / {found['dataset'][0]:.3f}"
    if "image_difference" in found:
        text += f" ({found['image_difference'][0]:+.3f} / {found['dataset_difference'][0]:+.3f})"
    return text
