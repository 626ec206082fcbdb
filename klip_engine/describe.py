"""What a file is to the engine, as plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from klip_engine.io import LoadedCT, Study, find_study, read_ct, read_dicom
from klip_engine.priors import load_prior
from klip_engine.priors.diffusers_pipeline import is_pipeline


def describe(what: str, tell_series: Callable[[list[dict[str, Any]]], None] | None = None) -> dict[str, Any]:
    """A prior's identity, grid and training, or a CT's format, geometry, notices and, of DICOM, its series.

    tell_series: is called with the series of a study before one of them is read, which may fail.

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
    study = find_study(path)
    if study is None:
        return _facts(read_ct(path))
    rows = series_rows(study)
    if tell_series is not None:
        tell_series(rows)
    return _facts(read_dicom(study)) | {"series": rows}


def series_rows(study: Study) -> list[dict[str, Any]]:
    """Every CT series of a study in the order of their numbers: which is `chosen`, and the `reason` why not."""
    choice = study.choose()
    return [
        series.described() | {"chosen": series is choice.chosen, "reason": reason or str(series.problem or "")}
        for series, reason in choice.reasons
    ]


def _facts(loaded: LoadedCT) -> dict[str, Any]:
    low, high = float(loaded.volume.hu.min()), float(loaded.volume.hu.max())
    return {"input": loaded.description, "hu_range": [low, high], "notices": list(loaded.notices)}
