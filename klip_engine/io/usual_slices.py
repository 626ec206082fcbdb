"""In words: which slices without anomaly a result was compared with, and which rate of false alarms was used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from klip_engine.words import counted


def usual_slices(settings: Mapping[str, Any], count: int) -> str:
    """What the null distribution was counted on, as its makers named it: "123 slices of 90 healthy scans".

    count: of null maxima, said where a result does not tell the source.
    """
    null = settings.get("null")
    source = null.get("source") if isinstance(null, Mapping) else None
    return str(source) if source else f"{counted(count, 'slice')} without anomaly"


def rate_used(settings: Mapping[str, Any], count: int) -> float | None:
    """The accepted share of null slices on which anything is marked, None where none is known.

    That of the settings, or the finest one that `count` null maxima can tell from zero, 1 / (1 + count), as
    `klip_engine.scoring.null.NullDistribution.threshold` does.
    """
    rate = settings.get("false_alarms")
    if not isinstance(rate, int | float):
        return None
    return max(float(rate), 1 / (1 + count)) if count else float(rate)


def rate_text(settings: Mapping[str, Any], count: int) -> str:
    """The rate that was used in percent, and the one that was asked for where that is another; else "unknown"."""
    used = rate_used(settings, count)
    if used is None:
        return "unknown"
    asked = settings["false_alarms"]
    return f"{100 * used:.3g} %" + ("" if used == asked else f" ({100 * asked:.3g} % was asked for)")
