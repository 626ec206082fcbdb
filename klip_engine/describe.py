"""What a file is to the engine, as plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from klip_engine.errors import InputError, UsageError
from klip_engine.files import write_file
from klip_engine.io import LoadedCT, Study, find_study, read_ct, read_dicom
from klip_engine.io.projections import ReadOptions, facts, find_format, geometry_picture, read_projections
from klip_engine.measured_scan import refuse_contradiction
from klip_engine.priors import load_prior
from klip_engine.priors.diffusers_pipeline import is_pipeline
from klip_engine.projections import Projections
from klip_engine.scans import doubts_about, to_slices


def describe(
    what: str,
    tell_series: Callable[[list[dict[str, Any]]], None] | None = None,
    *,
    picture: Path | None = None,
    item: int | None = None,
    stack: Path | None = None,
) -> dict[str, Any]:
    """What a prior is, a CT (of DICOM, with its series), or projections: their rays, dose and what is missing.

    tell_series: is called with the series of a study before one of them is read, which may fail; picture: of
    projections, a PNG to draw the geometry into; item, stack: as for `read_projections`.

    Raises InputError for what is none of them, UsageError for a picture or options of what has no rays and for a
    picture of another format.
    """
    path = Path(what)
    if picture is not None and picture.suffix.lower() != ".png":
        raise UsageError(f"the picture is a PNG, and {picture} is named otherwise: end its name in .png")
    if path.exists() and find_format(path) is not None:
        return _describe_projections(path, ReadOptions(item, stack), picture)
    ReadOptions(item, stack).check(f"{what} is no projection data")
    if picture is not None:
        raise UsageError(f"{what} is no projection data: there is no geometry to draw; leave the picture out")
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


def _describe_projections(path: Path, options: ReadOptions, picture: Path | None) -> dict[str, Any]:
    projections = read_projections(path, item=options.item, stack=options.stack)
    if picture is not None:
        write_file(picture, geometry_picture(projections))
    notices, refused = _as_slices(projections)
    return {
        "input": projections.description,
        "projections": facts(projections),
        "detect_refuses": refused,
        "notices": [*projections.notices, *notices],
    }


def _as_slices(projections: Projections) -> tuple[list[str], str | None]:
    """What `detect` will say of projections before it begins, and the sentence with which it refuses them."""
    try:
        slices, doubts = to_slices(projections, at_most=1), doubts_about(projections)
    except InputError as error:
        return [], str(error)
    notices, refused = [*slices.notices, *(doubt.sentence for doubt in doubts)], None
    try:
        refuse_contradiction(projections, doubts)
    except InputError as error:
        refused = str(error)
    return notices, refused
