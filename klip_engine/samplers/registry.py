"""Posterior samplers by name: a new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from klip_engine.errors import UsageError
from klip_engine.samplers.base import Sampler
from klip_engine.samplers.dds import DDS

SAMPLERS: dict[str, Callable[..., Sampler]] = {"dds": DDS}


def build_sampler(name: str, **settings: Any) -> Sampler:
    """The sampler called `name`; raises UsageError naming the ones there are."""
    if name not in SAMPLERS:
        raise UsageError(f"no sampler is called '{name}'; there are: {', '.join(SAMPLERS)}")
    return SAMPLERS[name](**settings)
