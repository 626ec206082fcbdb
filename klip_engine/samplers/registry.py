"""Posterior samplers by name: a new one is one file and one line here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from klip_engine.errors import UsageError
from klip_engine.samplers.base import Sampler
from klip_engine.samplers.ddpm import DDPM
from klip_engine.samplers.dds import DDS
from klip_engine.samplers.dps import DPS
from klip_engine.samplers.padis import PaDIS
from klip_engine.samplers.predictor_corrector import PredictorCorrector

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "dds": DDS,
    "dps": DPS,
    "padis": PaDIS,
    "pc": PredictorCorrector,
    "ddpm": DDPM,
}


def build_sampler(name: str, options: Mapping[str, float] | None = None, **common: Any) -> Sampler:
    """The sampler called `name`.

    common: what every sampler is offered (steps, sigma_max, ...) and takes where it knows it; options: what this
    one alone has, by the names of its fields. Raises UsageError naming the samplers, or the options, there are, and
    for options that are out of range.
    """
    if name not in SAMPLERS:
        raise UsageError(f"no sampler is called '{name}'; there are: {', '.join(SAMPLERS)}")
    known = inspect.signature(SAMPLERS[name]).parameters
    own = [key for key in known if key not in common]
    unknown = set(options or {}) - set(own)
    if unknown:
        raise UsageError(
            f"the sampler '{name}' has no option {', '.join(sorted(unknown))}; it has: {', '.join(own) or 'none'}"
        )
    return SAMPLERS[name](**{key: value for key, value in common.items() if key in known}, **(options or {}))
