"""What can be set, with defaults chosen by measurement (docs/benchmarks.md). Written into every result."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from klip_engine.errors import UsageError
from klip_engine.scoring.klip import ScoreTerm


@dataclass(frozen=True)
class OperatorSettings:
    """What is measured when the input is a volume.

    name: as in `klip_engine.operators.OPERATORS`; views, arc_deg, start_deg: of a CT scan, None for its own
    default; dose: a noise preset of `klip_engine.operators.NOISE_PRESETS`, None for an ideal scan;
    noise_hu: standard deviation the data term assumes for identity and blur, whose data are the image itself.
    """

    name: str = "identity"
    views: int | None = None
    arc_deg: float | None = None
    start_deg: float | None = None
    dose: str | None = None
    noise_hu: float = 20.0

    @property
    def sees_images(self) -> bool:
        """True for operators whose measurement is an image, not a scan."""
        return self.name in ("identity", "blur")

    def __post_init__(self) -> None:
        if not 0 < self.noise_hu < math.inf:
            raise UsageError(f"noise_hu is {self.noise_hu}; it must be positive")


@dataclass(frozen=True)
class SamplingSettings:
    """How the posterior is sampled: the sampler's name, noise levels (sigma in units of 1000 HU) and samples."""

    sampler: str = "dds"
    steps: int = 20
    samples: int = 2
    sigma_max: float = 3.0
    sigma_min: float = 0.006
    predicted_variance: bool | None = None
    """Whether the data term trusts each pixel of the prior's mean by the variance the prior predicts; None: CT
    scans yes (less error from 24 views), for identity and blur no (the data settle every pixel anyway)."""

    def __post_init__(self) -> None:
        if self.steps < 2 or self.samples < 1:
            raise UsageError("sampling needs at least 2 steps and 1 sample")
        if not 0 < self.sigma_min < self.sigma_max:
            raise UsageError("sampling needs 0 < sigma_min < sigma_max")


@dataclass(frozen=True)
class ScoreSettings:
    """How the pulls become a score map: the integral, and the sizes of the blocks it is averaged over.

    With several block sizes each map is divided by its typical highest value on null slices, and the largest
    counts at every pixel.
    """

    name: str
    term: ScoreTerm
    block_mm: tuple[float, ...]

    def blocks(self, pixel_mm: float) -> tuple[int, ...]:
        """Odd block sizes in pixels, nearest to `block_mm`."""
        return tuple(sorted({2 * round((size / pixel_mm - 1) / 2) + 1 for size in self.block_mm}))


SCORES: dict[str, ScoreSettings] = {
    "klip": ScoreSettings("klip", ScoreTerm((0.06, 1.0), "plain"), (15.0,)),
    "klip-variance": ScoreSettings("klip-variance", ScoreTerm((0.06, 1.0), "variance"), (9.0,)),
    "klip-coherent": ScoreSettings("klip-coherent", ScoreTerm((0.5, 3.0), "coherent"), (3.0,)),
}
"""Scores by name: `klip` weighs the pulls as the paper does, `klip-variance` by the variance the prior predicts,
`klip-coherent` does so after averaging the signed pulls (`klip_engine.scoring.klip.Weighting`)."""

DEFAULT_SCORE = "klip-coherent"

SCORING_VERSION = 1
"""Part of every null distribution's key: raise it when scores of the same settings change."""


@dataclass(frozen=True)
class DetectionSettings:
    """Everything that changes a result, and how it is computed.

    false_alarms: the accepted share of slices drawn from the prior on which anything is marked; seed: of all random
    numbers; batch_slices: slices computed together (changes memory and speed; on the CPU not the label map).
    """

    operator: OperatorSettings = field(default_factory=OperatorSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    score: ScoreSettings = SCORES[DEFAULT_SCORE]
    false_alarms: float = 0.2
    seed: int = 0
    device: str = "auto"
    batch_slices: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.false_alarms < 1:
            raise UsageError(f"the rate of false alarms lies between 0 and 1, not at {self.false_alarms:g}")
        if self.batch_slices < 1:
            raise UsageError("batch_slices must be at least 1")
        if int(self.seed) != self.seed or self.seed < 0:
            raise UsageError("the seed is a whole number of at least 0")
        low, high = self.score.term.window
        if not max(low, self.sampling.sigma_min) < min(high, self.sampling.sigma_max):
            raise UsageError("the score's window holds none of the sampled noise levels")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for results."""
        plain = plain_data(asdict(self))
        assert isinstance(plain, dict)
        return plain

    def null_settings(self, prior_sha256: str) -> dict[str, Any]:
        """What a null distribution depends on: everything that changes scores, and nothing else."""
        settings = self.to_dict()
        kept = {name: settings[name] for name in ("operator", "sampling", "score")}
        return {"prior": prior_sha256, "scoring": SCORING_VERSION} | kept


PRESETS: dict[str, DetectionSettings] = {
    "default": DetectionSettings(),
    "fast": DetectionSettings(sampling=SamplingSettings(samples=1, steps=12)),
    "sparse-24": DetectionSettings(operator=OperatorSettings("parallel", views=24)),
}
"""Settings by name: `default` looks at the image itself, `fast` takes a third of the network evaluations,
`sparse-24` is the paper's task, 24 parallel views."""


def choose_settings(
    preset: str = "default",
    *,
    operator: str | None = None,
    views: int | None = None,
    sampler: str | None = None,
    steps: int | None = None,
    samples: int | None = None,
    score: str | None = None,
    false_alarms: float | None = None,
    device: str | None = None,
    seed: int | None = None,
    batch_slices: int | None = None,
) -> DetectionSettings:
    """Settings from a preset and what the user said beside it; raises UsageError naming the choices."""
    settings = _named(PRESETS, preset, "preset")
    return replace(
        settings,
        operator=_given(settings.operator, name=operator, views=views),
        sampling=_given(settings.sampling, sampler=sampler, steps=steps, samples=samples),
        score=settings.score if score is None else _named(SCORES, score, "score"),
        **_without_none(false_alarms=false_alarms, device=device, seed=seed, batch_slices=batch_slices),
    )


def plain_data(value: Any) -> Any:
    """Nested tuples as lists and infinities as words, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_data(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return "infinity"
    return value


def _named(choices: dict[str, Any], name: str, what: str) -> Any:
    if name not in choices:
        raise UsageError(f"no {what} is called '{name}'; there are: {', '.join(choices)}")
    return choices[name]


def _given(settings: Any, **values: Any) -> Any:
    return replace(settings, **_without_none(**values))


def _without_none(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
