"""What is usual: the distribution of slice scores where nothing is wrong, and what follows from it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from klip_engine.errors import PriorError, UsageError
from klip_engine.files import write_file

if TYPE_CHECKING:  # of the score map, which needs torch; what is usual does not
    from klip_engine.scoring.score_map import Scales

SCHEMA = "klip-null/3"

FEWEST_SLICES = 8
"""Of a scan, below which its own level is not estimated."""
AMONG = "+neighbours"
"""Ends the name of a score of slices among neighbours (`NullDistribution.score_name`)."""
UNRAISED = (1.0, 1.0)
"""Level and spread (`NullDistribution.raised`) that change nothing."""
_PRIOR_SLICES = 8
_LARGEST_FACTOR = 3.0


@dataclass(frozen=True)
class NullDistribution:
    """Scores of slices without anomaly: the highest block score of each, sorted.

    The rate of false alarms is the share of such slices on which anything at all is marked.
    """

    maxima: tuple[float, ...]
    scales: Scales
    """For each map (term and block size) its typical highest value at each place, by which it is divided."""
    settings: dict[str, Any]
    """What they were measured with; scores are comparable only under the same settings."""
    source: str = ""
    """In words: which slices these are."""
    scan_factor: float = 1.0
    """What the scores were multiplied by to fit the level of one scan (`adapted_to`)."""

    def __post_init__(self) -> None:
        if not self.maxima or not all(math.isfinite(value) for value in self.maxima):
            raise PriorError("a null distribution needs finite scores; calibrate the prior again")

    @property
    def among_neighbours(self) -> bool:
        """Whether slices were scored with their neighbours."""
        return bool(self.settings.get("score", {}).get("neighbours", False))

    @property
    def score_name(self) -> str:
        """Of the score it is of, which among neighbours is another."""
        return str(self.settings["score"]["name"]) + AMONG * self.among_neighbours

    def identity(self) -> dict[str, Any]:
        """Its key, number of slices, their source and whether they were scored with their neighbours, as written
        into every result."""
        return {
            "key": settings_key(self.settings),
            "slices": len(self.maxima),
            "source": self.source,
            "neighbours": self.among_neighbours,
            "scan_factor": round(self.scan_factor, 4),
        }

    def raised(self, level: float, spread: float) -> NullDistribution:
        """The null as patients the prior has not seen score, where it was made of those it was trained on.

        A prior knows its training patients better than others: level is how many times higher the median of others
        lies, spread how many times further apart the logarithms of their scores lie around it. Both come from
        priors that did not see part of the patients (docs/benchmarks.md, patients seen and unseen). Slices without
        score stay at 0.
        """
        shown = [score for score in self.maxima if score > 0]
        if not shown or (level, spread) == UNRAISED:
            return self
        middle = float(np.median(shown))
        maxima = tuple(level * middle * (score / middle) ** spread if score > 0 else score for score in self.maxima)
        apart = "" if spread == 1 else f" and spread {spread:g} times"
        words = f"their scores raised {level:g} times{apart}, as patients unseen in training score"
        return replace(self, maxima=maxima, source=f"{self.source}, {words}")

    def adapted_to(self, scan_maxima: Sequence[float]) -> NullDistribution:
        """The null of one scan, from the highest score of each of its slices (0: shows no body).

        Scanners, doses and patients differ from those behind the null, and with them the level of all scores. It is
        estimated by the ratio of medians, which lesions in less than half of the slices hardly move, and shrunk
        towards 1 as if `_PRIOR_SLICES` more slices had scored as the null does. Scans of fewer than `FEWEST_SLICES`
        slices keep the null as it is. What is wrong in most slices of a scan is taken for its level.
        """
        shown = np.asarray([score for score in scan_maxima if score > 0])
        if len(shown) < FEWEST_SLICES:
            return self
        usual = [score for score in self.maxima if score > 0]
        ratio = float(np.median(shown) / np.median(usual)) if usual else 1.0
        factor = ratio ** (len(shown) / (len(shown) + _PRIOR_SLICES))
        factor = min(max(factor, 1 / _LARGEST_FACTOR), _LARGEST_FACTOR)
        return replace(self, maxima=tuple(factor * score for score in self.maxima), scan_factor=factor)

    def p_value(self, score: float) -> float:
        """(1 + number of null slices scoring at least this) / (1 + number of null slices).

        Davison and Hinkley 1997, equation 4.11: never zero, and valid for any number of null slices.
        """
        above = len(self.maxima) - int(np.searchsorted(self.maxima, score, side="left"))
        return (1 + above) / (1 + len(self.maxima))

    @property
    def finest_rate(self) -> float:
        """The smallest rate of false alarms this many null slices can tell from zero."""
        return 1.0 / (1 + len(self.maxima))

    def rate_notices(self, false_alarms: float) -> tuple[str, ...]:
        """What the reader should know where a rate is finer than this null can tell."""
        if false_alarms >= self.finest_rate:
            return ()
        return (
            f"The null distribution cannot tell rates of false alarms below {self.finest_rate:.3g} apart; "
            f"{self.finest_rate:.3g} was used instead of {false_alarms:.3g}.",
        )

    def threshold(self, false_alarms: float) -> float:
        """The score whose p-value is at most `false_alarms`: scores above it are suspicious.

        Rates below `finest_rate` get the highest score seen.
        """
        allowed = math.floor(false_alarms * (1 + len(self.maxima))) - 1  # null slices that may lie above
        if allowed < 0:
            return self.maxima[-1]
        return self.maxima[max(0, len(self.maxima) - 1 - allowed)]

    def save(self, folder: Path) -> Path:
        """Write it below a bundle, under the key of its settings; complete or not at all."""
        record = {
            "schema": SCHEMA,
            "source": self.source,
            "settings": self.settings,
            "scales": [list(places) for places in self.scales],
            "maxima": list(self.maxima),
        }
        path = folder / f"{settings_key(self.settings)}.json"
        return write_file(path, (json.dumps(record, indent=1) + "\n").encode())


def check_rate(false_alarms: float) -> None:
    """Raises UsageError for a rate of false alarms that is no number between 0 and 1."""
    number = isinstance(false_alarms, int | float) and not isinstance(false_alarms, bool)
    if not (number and 0 < false_alarms < 1):
        raise UsageError(f"the rate of false alarms lies between 0 and 1, not at {false_alarms}")


def null_from_scores(
    maxima: Sequence[float], scales: Sequence[Sequence[float]], settings: dict[str, Any], source: str = ""
) -> NullDistribution:
    """A null distribution from slice scores in any order."""
    return NullDistribution(
        tuple(sorted(float(value) for value in maxima)),
        tuple(tuple(float(s) for s in places) for places in scales),
        settings,
        source,
    )


def find_null(folder: Path, settings: dict[str, Any]) -> NullDistribution | None:
    """The null distribution for exactly these settings in a folder, or None.

    Raises PriorError when a file is there but damaged.
    """
    path = folder / f"{settings_key(settings)}.json"
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA or record["settings"] != settings:
            raise ValueError("it was made for other settings")
        return null_from_scores(record["maxima"], record["scales"], record["settings"], record["source"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PriorError(f"the null distribution {path} is damaged: {error}; calibrate again") from error


def settings_key(settings: dict[str, Any]) -> str:
    """A short stable name for a set of settings."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
