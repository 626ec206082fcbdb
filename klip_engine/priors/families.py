"""The families of priors a bundle may hold: how each is built from plain data, and told as plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from klip_engine.errors import PriorError
from klip_engine.priors.base import Denoiser, NetworkDenoiser
from klip_engine.priors.ddpm import DDPMDenoiser
from klip_engine.priors.diffusers_pipeline import DiffusersDenoiser
from klip_engine.priors.edm import EDMDenoiser
from klip_engine.priors.gaussian import SpectralGaussian
from klip_engine.priors.patches import PatchEDMDenoiser
from klip_engine.priors.plain_edm import PlainEDMDenoiser
from klip_engine.priors.scaled import ScaledDenoiser
from klip_engine.priors.ve import VEDenoiser

DEFAULT_FAMILY = "edm"
"""Of bundles that name none: they are older than families."""


@dataclass(frozen=True)
class Family:
    """build: a denoiser, its weights still to be given by `architectures.load_weights`, from what `config_of` gave;
    both know plain data only.

    `build` raises KeyError, TypeError or ValueError for a configuration it cannot read.
    """

    build: Callable[[dict[str, Any]], NetworkDenoiser]
    config_of: Callable[[Any], dict[str, Any]]


FAMILIES: dict[str, Family] = {
    "edm": Family(EDMDenoiser.from_config, EDMDenoiser.config),
    "gaussian": Family(SpectralGaussian.from_config, SpectralGaussian.config),
    "patch-edm": Family(PatchEDMDenoiser.from_config, PatchEDMDenoiser.config),
    "ddpm": Family(DDPMDenoiser.from_config, DDPMDenoiser.config),
    "ve": Family(VEDenoiser.from_config, VEDenoiser.config),
    "edm-song": Family(PlainEDMDenoiser.from_config, PlainEDMDenoiser.config),
    "diffusers": Family(DiffusersDenoiser.from_config, DiffusersDenoiser.config),
    "scaled": Family(ScaledDenoiser.from_config, ScaledDenoiser.config),
}


def find_family(name: str) -> Family:
    """A family by its name; raises PriorError with the known ones."""
    if name not in FAMILIES:
        raise PriorError(
            f"priors of the family '{name}' are unknown to this engine version (known: {', '.join(FAMILIES)})"
        )
    return FAMILIES[name]


def family_of(denoiser: Denoiser) -> str:
    """The name of a denoiser's family; raises PriorError for a denoiser that belongs to none."""
    name = getattr(denoiser, "family", None)
    if name not in FAMILIES:
        raise PriorError(f"a {type(denoiser).__name__} cannot be kept in a bundle: it is of no registered family")
    return str(name)
