"""What can be set, with defaults chosen by measurement (docs/benchmarks.md). Written into every result."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from klip_engine.errors import UsageError
from klip_engine.operators.registry import SCANS
from klip_engine.samplers import Sampler, build_sampler
from klip_engine.scoring.klip import ScoreTerm
from klip_engine.scoring.null import check_rate


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise UsageError(otherwise)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _nearest_odd(size: float) -> int:
    return 2 * round((size - 1) / 2) + 1


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


MEASURED = "measured"
"""The operator of projections: what the scanner did, not something simulated."""


@dataclass(frozen=True)
class OperatorSettings:
    """What is measured when the input is a volume.

    name: as in `klip_engine.operators.OPERATORS`; views, arc_deg, start_deg: of a CT scan, None for its own
    default; dose: a noise preset of `klip_engine.operators.NOISE_PRESETS`, None for an ideal scan;
    noise_hu: standard deviation the data term assumes for operators that are no scans, whose data are in HU;
    add_noise: whether white noise of that deviation is also added to those data, else they are taken as they are;
    kernel_size, sigma_px: of the blur in pixels, None for its own default; per_pixels: where given, the two are
    meant for an image whose shorter side has that many pixels, and scale with the image.
    scan: of `MEASURED` projections, their geometry and noise as `klip_engine.measurement` describes them.
    Photographs have no HU: one is 0.001 of their range [-1, 1], so 255 grey values are 2000.
    """

    name: str = "identity"
    views: int | None = None
    arc_deg: float | None = None
    start_deg: float | None = None
    dose: str | None = None
    noise_hu: float = 20.0
    add_noise: bool = False
    kernel_size: int | None = None
    sigma_px: float | None = None
    per_pixels: int | None = None
    scan: dict[str, Any] | None = None

    def blur(self, image_shape: tuple[int, int]) -> dict[str, Any]:
        """What of the blur is set, as `GaussianBlur` takes it, for images of (height, width)."""
        both = {"kernel_size": self.kernel_size, "sigma": self.sigma_px}
        set_ones = {name: value for name, value in both.items() if value is not None}
        if self.per_pixels is None:
            return set_ones
        scaled = {name: value * min(image_shape) / self.per_pixels for name, value in set_ones.items()}
        return {name: _nearest_odd(value) if name == "kernel_size" else value for name, value in scaled.items()}

    @property
    def sees_images(self) -> bool:
        """True for operators that measure values in the image's own unit, not line integrals."""
        return self.name not in SCANS and self.name != MEASURED

    def __post_init__(self) -> None:
        _check(isinstance(self.name, str), "an operator has a name")
        if (self.name == MEASURED) != isinstance(self.scan, dict):
            raise UsageError(
                f"the operator '{MEASURED}' stands for projections as a scanner measured them: give their file, "
                "and no other operator has a scan"
            )
        _check(self.views is None or _whole(self.views, 1), "views is a whole number of at least 1")
        if not (_number(self.noise_hu) and 0 < self.noise_hu < math.inf):
            raise UsageError(f"noise_hu is {self.noise_hu}; it must be positive")
        _check(isinstance(self.add_noise, bool), "add_noise is true or false")
        _check(self.kernel_size is None or _whole(self.kernel_size, 1), "kernel_size is a whole number of pixels")
        _check(self.per_pixels is None or _whole(self.per_pixels, 1), "per_pixels is a whole number of pixels")
        if self.sigma_px is not None and not (_number(self.sigma_px) and 0 < self.sigma_px < math.inf):
            raise UsageError(f"sigma_px is {self.sigma_px}; it must be positive")


_LATER_OPERATOR_FIELDS = ("add_noise", "kernel_size", "sigma_px", "per_pixels", "scan")
"""Left out of a null distribution's key where they are not set: nulls from before them stay valid."""


@dataclass(frozen=True)
class SamplingSettings:
    """How the posterior is sampled: the sampler's name, noise levels (sigma in units of 1000 HU) and samples.

    The defaults are for images: what their measurement leaves open is settled at low noise levels, and lower or
    denser ones changed no figure. Scans need `klip_engine.presets.SCAN_SAMPLING`.
    """

    sampler: str = "dds"
    steps: int = 16
    samples: int = 2
    sigma_max: float = 3.0
    sigma_min: float = 0.02
    antithetic: bool = True
    """Samples come in pairs of opposite noise: in their mean most of the noise's own effect cancels."""
    predicted_variance: bool | None = None
    """Whether the data term trusts each pixel of the prior's mean by the variance the prior predicts; None: CT
    scans yes (less error from 24 views), for identity and blur no (the data settle every pixel anyway)."""
    options: dict[str, float] = field(default_factory=dict)
    """What this sampler alone can be told, by name (`klip_engine.samplers`)."""

    def __post_init__(self) -> None:
        if not (_whole(self.steps, 2) and _whole(self.samples, 1)):
            raise UsageError("sampling needs at least 2 steps and 1 sample")
        _check(isinstance(self.options, dict), "a sampler's options are numbers by name")
        _check(all(_number(value) for value in self.options.values()), "a sampler's options are numbers")
        if not (_number(self.sigma_min) and _number(self.sigma_max) and 0 < self.sigma_min < self.sigma_max):
            raise UsageError("sampling needs 0 < sigma_min < sigma_max")

    def build(self, predicted_variance: bool = False) -> Sampler:
        """The sampler; predicted_variance: what None stands for here. Raises UsageError for an unknown one."""
        return build_sampler(
            self.sampler,
            self.options,
            steps=self.steps,
            sigma_max=self.sigma_max,
            sigma_min=self.sigma_min,
            predicted_variance=predicted_variance if self.predicted_variance is None else self.predicted_variance,
        )

    @property
    def evaluations(self) -> int:
        """Network evaluations per slice, all samples together; raises UsageError for an unknown sampler."""
        return self.build().evaluations * self.samples


@dataclass(frozen=True)
class ScoreSettings:
    """How the pulls become a score map: the integrals, and the sizes of the blocks they are averaged over.

    With several of either, each map is divided by its typical highest value on null slices
    (`ScoreTerm.unit_quantile`), and the largest counts at every pixel. place_edges_hu: each kind of tissue has
    its own typical value, told apart by the mean HU around a pixel (Gaussian of `place_mm`): what pulls little
    everywhere in the lung is compared with the lung. neighbours: the terms that ask for it
    (`ScoreTerm.over_neighbours`) are averaged over each slice and its neighbours (`klip_engine.stacks`), where
    scan and reference have them.
    """

    name: str
    terms: tuple[ScoreTerm, ...]
    block_mm: tuple[float, ...]
    place_edges_hu: tuple[float, ...] = ()
    place_mm: float = 9.0
    neighbours: bool = False

    def __post_init__(self) -> None:
        _check(bool(self.terms), "a score needs at least one term")
        _check(bool(self.block_mm) and min(self.block_mm) > 0, "a score needs block sizes above 0 mm")
        _check(_number(self.place_mm) and self.place_mm > 0, "place_mm must be above 0")
        _check(all(_number(edge) for edge in self.place_edges_hu), "place_edges_hu are numbers")
        _check(isinstance(self.neighbours, bool), "neighbours is true or false")

    @property
    def alone(self) -> ScoreSettings:
        """The same score of slices that stand alone."""
        return replace(self, neighbours=False)

    @property
    def variants(self) -> tuple[ScoreSettings, ...]:
        """The score, and what stands for it where slices have no neighbours."""
        return (self, self.alone) if self.neighbours else (self,)

    def blocks(self, pixel_mm: float) -> tuple[int, ...]:
        """Odd block sizes in pixels, nearest to `block_mm`."""
        return tuple(sorted({_nearest_odd(size / pixel_mm) for size in self.block_mm}))


SCORES: dict[str, ScoreSettings] = {
    "klip": ScoreSettings("klip", (ScoreTerm((0.2, 0.8), "plain"),), (3.0,)),
    "klip-variance": ScoreSettings("klip-variance", (ScoreTerm((0.06, 1.0), "variance"),), (9.0,)),
    "klip-coherent": ScoreSettings("klip-coherent", (ScoreTerm((0.2, 0.7), "coherent", 1.5),), (3.0,)),
    "klip-multiscale": ScoreSettings(
        "klip-multiscale",
        (
            ScoreTerm((0.06, 0.3), "coherent", 1.5),
            ScoreTerm((0.2, 0.7), "coherent", 1.5),
            ScoreTerm((0.5, 1.5), "geometric-coherent", 1.0),
            ScoreTerm((0.5, 1.5), "geometric-coherent", 1.0, over_neighbours=False),
            ScoreTerm((0.2, 0.8), "plain-energy", 2.5, unit_quantile=0.95, over_neighbours=False),
            ScoreTerm((0.3, 1.0), "plain-denser-energy", 4.0, unit_quantile=0.95),
        ),
        (3.0,),
        place_edges_hu=(-400.0, 100.0),
        neighbours=True,
    ),
    "kl": ScoreSettings("kl", (ScoreTerm(),), (3.0,)),
}
"""Scores by name: `klip` weighs the pulls as the paper does, `klip-variance` by the variance the prior predicts,
`klip-coherent` does so after averaging the signed pulls (`klip_engine.scoring.klip.Weighting`), `klip-multiscale`
takes the strongest of six terms, in units of what is usual in lung, soft tissue or bone: low noise levels, where
faint things show; middle ones, where a few hundred HU do; high ones for what is as dense as tissue where air should
be, averaged over neighbouring slices as those, and not, for what ends before the next slice; the paper's window
around each pixel, not averaged either; and high ones on a wide scale for what is denser than expected where it
could be the chest wall (air where tissue should be is a larger lung or gas there, as healthy people have them).
`kl` is the whole divergence, without window or block, for comparison."""

DEFAULT_SCORE = "klip-multiscale"

IN_RESULTS_ONLY = ("null", "noise_levels")
"""What a result records among its settings beside what was set."""

SCORING_VERSION = 3
"""Part of every null distribution's key: raise it when scores of the same settings change."""


@dataclass(frozen=True)
class DetectionSettings:
    """Everything that changes a result, and how it is computed.

    false_alarms: the accepted share of healthy (null) slices on which anything is marked; seed: of all random
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
        check_rate(self.false_alarms)
        _check(_whole(self.batch_slices, 1), "batch_slices must be a whole number of at least 1")
        _check(_whole(self.seed, 0), "the seed is a whole number of at least 0")
        _check(isinstance(self.device, str), "the device is a name")
        levels = self.sampling.build().levels
        for low, high in (term.window for term in self.score.terms):
            if not max(low, levels[-1]) < min(high, levels[0]):
                raise UsageError("a window of the score holds none of the sampled noise levels")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for results."""
        plain = plain_data(asdict(self))
        assert isinstance(plain, dict)
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> DetectionSettings:
        """Settings from what `to_dict` gave, after JSON; what a result adds (`IN_RESULTS_ONLY`) is left aside.

        What is missing keeps its default. Raises UsageError naming what is unknown or of the wrong kind.
        """
        try:
            known = {name: value for name, value in plain.items() if name not in IN_RESULTS_ONLY}
            _check_names(known, cls, "detection")
            parts: dict[str, Any] = {
                "operator": lambda part: OperatorSettings(**_check_names(part, OperatorSettings, "operator")),
                "sampling": lambda part: SamplingSettings(**_check_names(part, SamplingSettings, "sampling")),
                "score": lambda part: _score_from(_check_names(part, ScoreSettings, "score")),
            }
            given = {name: parts[name](value) if name in parts else value for name, value in known.items()}
            settings = cls(**given)
            settings.to_dict()
            return settings
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise UsageError(f"these are not settings of a detection: {error}") from error

    def null_settings(self, prior_sha256: str, healthy: str) -> dict[str, Any]:
        """What a null distribution depends on: everything that changes scores, the slices, and nothing else.

        healthy: which slices it is measured on, a digest, or "drawn" from the prior.
        """
        settings = self.to_dict()
        kept = {name: settings[name] for name in ("operator", "sampling", "score")}
        if not self.sampling.options:
            del kept["sampling"]["options"]
        unset = OperatorSettings()
        for name in _LATER_OPERATOR_FIELDS:
            if kept["operator"][name] == getattr(unset, name):
                del kept["operator"][name]
        if not self.score.neighbours:
            del kept["score"]["neighbours"]
        for term in kept["score"]["terms"]:
            if term["over_neighbours"] or not self.score.neighbours:
                del term["over_neighbours"]
        return {"prior": prior_sha256, "healthy": healthy, "scoring": SCORING_VERSION} | kept


def all_scores(settings: DetectionSettings) -> list[ScoreSettings]:
    """The settings' own score and every named one, each once."""
    return [settings.score, *(score for name, score in SCORES.items() if name != settings.score.name)]


def _check_names(part: dict[str, Any], kind: type, what: str) -> dict[str, Any]:
    """The part itself; raises UsageError when it names a field that the dataclass `kind` does not have."""
    known = [field.name for field in fields(kind)]
    unknown = sorted(set(part) - set(known))
    if unknown:
        raise UsageError(f"the {what} settings have no field {', '.join(unknown)}; there are: {', '.join(known)}")
    return part


def _score_from(part: dict[str, Any]) -> ScoreSettings:
    def infinite(value: Any) -> float:
        return math.inf if value == "infinity" else float(value)

    terms = []
    for term in part["terms"]:
        low, high = term["window"]
        terms.append(ScoreTerm(**(term | {"window": (infinite(low), infinite(high))})))
    tuples: dict[str, Any] = {
        name: tuple(float(v) for v in part[name]) for name in ("block_mm", "place_edges_hu") if name in part
    }
    return ScoreSettings(**(part | {"terms": tuple(terms)} | tuples))


def plain_data(value: Any) -> Any:
    """Nested tuples as lists and infinities as words, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_data(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return "infinity"
    return value
