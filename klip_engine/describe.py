"""What a file is to the engine, as plain data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from klip_engine.io import read_ct
from klip_engine.priors import load_prior
from klip_engine.priors.diffusers_pipeline import is_pipeline


def describe(what: str) -> dict[str, Any]:
    """A prior's identity, grid and training, or a CT's format, geometry and notices.

    Raises InputError for what is neither.
    """
    path = Path(what)
    if (path / "configs" / "metadata.json").is_file() or is_pipeline(path) or not path.exists():
        prior = load_prior(what)
        return {
            "prior": prior.identity(),
            "family": prior.family,
            "grid": None if prior.grid is None else asdict(prior.grid),
            "image": {"shape": prior.denoiser.image_shape, "channels": prior.denoiser.channels},
            "training": prior.training,
            "null_distributions": len(list((prior.folder / "null").glob("*.json"))),
        }
    loaded = read_ct(path)
    low, high = float(loaded.volume.hu.min()), float(loaded.volume.hu.max())
    return {"input": loaded.description, "hu_range": [low, high], "notices": list(loaded.notices)}
