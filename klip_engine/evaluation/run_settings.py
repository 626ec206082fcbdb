"""How the slices of a study are scored."""

from __future__ import annotations

from dataclasses import dataclass, replace

from klip_engine.errors import UsageError
from klip_engine.settings import SCORES, DetectionSettings


@dataclass(frozen=True)
class RunSettings:
    """How a study is scored: reconstruction and device, the KLIP scores, and the slices that methods learn from."""

    detection: DetectionSettings
    scores: tuple[str, ...] = tuple(SCORES)
    reference_slices: int = 64

    def __post_init__(self) -> None:
        if not self.scores or len(set(self.scores)) != len(self.scores):
            raise UsageError("name at least one score, each once")
        if self.reference_slices < 4:
            raise UsageError("methods of comparison need at least four reference slices")
        for name in self.scores:
            self.scored_by(name)

    def scored_by(self, name: str) -> DetectionSettings:
        """The settings of `klip-engine detect` with this score; raises UsageError for one that does not fit."""
        if name == self.detection.score.name:
            return self.detection
        if name not in SCORES:
            raise UsageError(f"no score is called '{name}'; there are: {', '.join(SCORES)}")
        return replace(self.detection, score=SCORES[name])
