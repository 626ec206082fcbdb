"""Colours of scores: a perceptually uniform map, and the tables that paint the heat map and the findings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_ENTRIES = 256


@dataclass(frozen=True)
class ScoreScale:
    """Which score gets which colour, the same in heat map, regions and segments.

    top: the score at the bright end (the dark end is 0); visible_from: below it the heat map is transparent.
    """

    top: float
    visible_from: float

    def colour(self, score: float) -> tuple[float, float, float]:
        """RGB from 0 to 1 of a score."""
        red, green, blue = _rgb(np.array([score / self.top if math.isfinite(score) else 1.0]))[0]
        return float(red), float(green), float(blue)


def score_scale(document: dict[str, Any]) -> ScoreScale:
    """The scale of a result (what findings.json holds): up to its highest score, seen from half the threshold."""
    scores = [entry["score"] for entry in (*document["slices"], *document["findings"])]
    threshold = document["threshold"] or 0.0
    top = max([threshold, *(score for score in scores if score is not None)], default=0.0) or 1.0
    return ScoreScale(top, min(threshold / 2, top))


def fill_score_colours(colour_node: Any) -> None:
    """The heat map's table: 256 colours evenly spaced on the perceptually uniform map."""
    _reserve(colour_node, _ENTRIES)
    for index, (red, green, blue) in enumerate(_rgb(np.linspace(0, 1, _ENTRIES))):
        colour_node.SetColor(index, f"{index / (_ENTRIES - 1):.3f}", float(red), float(green), float(blue), 1.0)


def fill_region_colours(
    colour_node: Any, names: Sequence[str], colours: Sequence[tuple[float, float, float]]
) -> None:
    """The label map's table: nothing is transparent, label n has the n-th name and colour.

    Without a transparent entry 0 the whole slice would be tinted.
    """
    _reserve(colour_node, len(names) + 1)
    colour_node.SetColor(0, "nothing", 0.0, 0.0, 0.0, 0.0)
    for label, (name, colour) in enumerate(zip(names, colours, strict=True), start=1):
        colour_node.SetColor(label, name, *colour, 1.0)


def _reserve(colour_node: Any, count: int) -> None:
    description = colour_node.GetDescription()
    colour_node.SetTypeToUser()  # which writes a description of its own
    colour_node.SetDescription(description)
    colour_node.SetNumberOfColors(count)
    colour_node.GetLookupTable().SetRange(0, count - 1)


def _rgb(place: Any) -> Any:
    """RGB from 0 to 1 [n, 3] of places on the map from 0 to 1 [n]."""
    from klip_engine.io.report_pictures import SCORE_COLOURS  # the report's own; at first use, it brings pydicom

    table = np.asarray(SCORE_COLOURS, dtype=float) / 255
    steps = np.linspace(0, 1, len(table))
    return np.stack([np.interp(np.clip(place, 0, 1), steps, table[:, c]) for c in range(3)], axis=-1)
