"""Confidence intervals that respect that slices of one patient resemble each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from klip_engine.errors import UsageError

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A figure and its percentile bootstrap interval; None where it cannot be computed.

    patients: how many the resampling drew from. With one patient the interval tells of its slices alone, and
    with few it is too narrow.
    """

    value: float | None
    low: float | None
    high: float | None
    patients: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Bootstrap:
    """Two stages: patients with replacement, then the slices of each drawn patient with replacement.

    Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8; limits are percentiles
    (Efron and Tibshirani 1993, chapter 13). The same seed gives the same intervals.
    """

    resamples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0 < self.level < 1:
            raise UsageError("a bootstrap needs at least one resample and a level between 0 and 1")

    def interval(self, statistic: Callable[..., float], *groups: Sequence[str]) -> Interval:
        """One figure; see `intervals`."""
        return self.intervals(lambda *chosen: {"": statistic(*chosen)}, *groups)[""]

    def intervals(
        self, statistics: Callable[..., Mapping[str, float]], *groups: Sequence[str]
    ) -> dict[str, Interval]:
        """Figures and their intervals from the same resamples.

        groups: for each group of slices (healthy ones, those of a lesion kind) the patient of every slice;
        statistics takes an array of slice numbers per group. Resamples in which a group lost all its slices are
        drawn again; a figure that is not finite on the data is None.
        """
        everything = tuple(np.arange(len(group)) for group in groups)
        patients = sorted({patient for group in groups for patient in group})
        if not groups or any(not len(group) for group in groups):
            raise UsageError("a bootstrap needs at least one slice in every group")
        values = statistics(*everything)
        members = [
            [np.flatnonzero(np.asarray(group, dtype=object) == patient) for patient in patients] for group in groups
        ]
        rng = np.random.default_rng(self.seed)
        drawn = [statistics(*self._resample(rng, members, len(patients))) for _ in range(self.resamples)]
        tail = 100 * (1 - self.level) / 2
        result = {}
        for name, value in values.items():
            series = np.array([one[name] for one in drawn])
            series = series[np.isfinite(series)]
            if not np.isfinite(value) or not series.size:
                result[name] = Interval(None, None, None, len(patients))
                continue
            low, high = np.percentile(series, [tail, 100 - tail])
            result[name] = Interval(float(value), float(low), float(high), len(patients))
        return result

    @staticmethod
    def _resample(
        rng: np.random.Generator, members: Sequence[Sequence[Indices]], patients: int
    ) -> tuple[Indices, ...]:
        while True:
            chosen = rng.integers(patients, size=patients)
            groups = []
            for group in members:
                parts = [group[p][rng.integers(len(group[p]), size=len(group[p]))] for p in chosen if len(group[p])]
                groups.append(np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64))
            if all(len(group) for group in groups):
                return tuple(groups)
