"""What a file format keeps of a scan and what it does not, in sentences for the user."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from klip_engine.projections import Projections
from klip_engine.words import counted

_WORDS = {
    "weights": "how far each ray can be trusted (weights)",
    "i0": "the photons in air",
    "electronic_sigma": "the electronic noise",
    "isocentre_mm": "where the isocentre lies in the patient",
    "volume_hint": "the grid of the scan's own reconstruction",
    "provenance": "the provenance",
}


def losses(
    projections: Projections,
    format_name: str,
    provenance: Mapping[str, Any],
    *,
    keeps: Collection[str] = (),
    assumed_mu_water_per_mm: float | None = None,
) -> tuple[str, ...]:
    """Sentences about what of this scan the written file lacks.

    keeps: names of `Projections`' fields (and "provenance") the format has a place for; assumed_mu_water_per_mm:
    what readers take for water where the format cannot say it.
    """
    there = {
        "weights": projections.weights is not None,
        "i0": projections.i0 is not None,
        "electronic_sigma": bool(projections.electronic_sigma),
        "isocentre_mm": any(projections.isocentre_mm),
        "volume_hint": projections.volume_hint is not None,
        "provenance": bool(provenance),
    }
    lost = [words for name, words in _WORDS.items() if there[name] and name not in keeps]
    said = [f"{format_name} has no place for {', '.join(lost)}: not kept"] if lost else []
    mu, assumed = projections.mu_water_per_mm, assumed_mu_water_per_mm
    if assumed is not None and abs(mu - assumed) > 1e-6 * mu:
        said.append(
            f"{format_name} cannot say that water attenuates by {mu:g} per mm: readers take {assumed:g}, and water "
            f"becomes {1000 * (mu / assumed - 1):+.0f} HU"
        )
    return tuple(said)


def without_holes(projections: Projections, format_name: str) -> tuple[Projections, tuple[str, ...]]:
    """The scan with elements of weight 0 filled in along their row, for formats that cannot mark them, and a
    sentence about it: a reader would take what stands there for measured."""
    bad = None if projections.weights is None else projections.weights == 0
    if bad is None or not bad.any():
        return projections, ()
    values = projections.line_integrals.copy()
    columns = np.arange(projections.detector.columns)
    empty = 0
    for view, row in np.argwhere(bad.any(axis=2)):
        good = ~bad[view, row]
        if good.any():
            values[view, row, ~good] = np.interp(columns[~good], columns[good], values[view, row, good])
        else:
            empty += 1
    said = f"{counted(int(bad.sum()), 'bad element')} were filled in from their neighbours: {format_name} cannot "
    said += "mark them"
    if empty:
        said += f"; {counted(empty, 'row')} without any good element stayed as they were"
    return replace(projections, line_integrals=values), (said,)
