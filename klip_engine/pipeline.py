"""The whole task in one call: a CT or a photograph goes in, suspicious regions come out."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from klip_engine.calibration import calibrate, known_null, usable_score, user_cache
from klip_engine.detection import Detection, PhotographDetection, WorkingResult
from klip_engine.errors import InputError, KlipError, ResourceError, UsageError, resource_errors
from klip_engine.io import Loaded, LoadedCT, LoadedPhotograph, read_ct, read_photograph
from klip_engine.io.projections import ReadOptions, find_format, read_projections
from klip_engine.marking import mark, slice_scores
from klip_engine.measured_scan import first_image, for_measured, measured_scanner, measured_slices
from klip_engine.notices import grid_notices, level_notices, neighbour_notices, range_notices
from klip_engine.photograph import Photograph, WorkingPhotograph, fit_prior
from klip_engine.presets import choose_settings
from klip_engine.priors import PriorBundle, load_prior
from klip_engine.projections import Projections
from klip_engine.scoring.null import NullDistribution
from klip_engine.scoring.score_map import slice_maxima
from klip_engine.scoring.updates import UpdateRecorder
from klip_engine.settings import DetectionSettings
from klip_engine.slices import (
    NetworkMeter,
    ScoredSlices,
    Watch,
    check_variance,
    scanner_and_sampler,
    score_images,
    score_map,
)
from klip_engine.volume import CTVolume, FloatArray
from klip_engine.working_grid import WorkingVolume, to_working_grid

Source = str | Path | Sequence[Path] | CTVolume | Photograph | Loaded

NULL_SLICES_ON_DEMAND = 64


def detect(
    source: Source,
    prior: str | Path | PriorBundle = "default",
    settings: DetectionSettings | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    save_updates: str | Path | None = None,
    trust_geometry: bool = False,
    warn: Callable[[str], None] | None = None,
    **choices: Any,
) -> Detection:
    """Find what does not belong in a CT, or with a prior of photographs in a photograph.

    source: what `read_input` reads or returned, a `CTVolume`, a `Photograph` or `Projections`, which bring their
    own operator, so that only sampling and score of the settings count; prior: a built-in name, a bundle folder
    or a loaded prior; settings: everything in detail, or else `choices` as for `choose_settings` (operator, views,
    steps, samples, score, false_alarms, device, seed, preset, ...).
    progress(stage, done, total) is called as the work goes on; when cancelled() is true, Cancelled is raised.
    save_updates: a new or empty folder for the normalised updates of every working slice, as artifacts of the
    published pipeline (docs/published-artifacts.md), written batch by batch.
    trust_geometry: take projections although they contradict their geometry; warn(sentence) is called before
    anything long begins with what does not fit, by default `warnings.warn`.
    Raises InputError, UsageError, Cancelled or ResourceError; writes nothing else but the null distribution of new
    settings, in the user's cache (see `klip_engine.io.write_results` for the results).
    """
    start = time.perf_counter()
    settings = _settings(settings, choices)
    watch = Watch(progress, cancelled)
    with resource_errors():
        device = pick_device(settings.device)
        bundle = prior.on(device) if isinstance(prior, PriorBundle) else load_prior(prior, device)
        _, sampler = scanner_and_sampler(bundle, settings)  # wrong settings are said before anything long begins
        check_variance(bundle, [settings.score], device)
        loaded, measured = _load(source, bundle), None
        if isinstance(loaded, Projections):
            measured = measured_slices(loaded, bundle, trust_geometry=trust_geometry, warn=warn)
            settings = for_measured(settings, measured, bundle.ct_grid.pixel_mm)
            _, sampler = scanner_and_sampler(bundle, settings)
            loaded = first_image(loaded, measured)
        working = _on_the_priors_grid(loaded, bundle)
        scanner = None
        if measured is not None and isinstance(working, WorkingVolume):
            working, scanner = measured_scanner(measured, working)
        asked, stack = settings, (len(working.body), working.geometry.spacing[2])
        settings = replace(settings, score=usable_score(asked.score, bundle, *stack))
        recorder = None
        if save_updates is not None:
            kept = settings.to_dict() | {"prior": bundle.identity()}
            recorder = UpdateRecorder(Path(save_updates), sampler.levels, working.body, kept)
        null_start = time.perf_counter()
        null, null_notices = _null(bundle, settings, device, watch)
        null_seconds = time.perf_counter() - null_start
        meter = NetworkMeter(bundle.denoiser, watch)
        scored = score_images(
            working.images, bundle, settings, device, meter, "reconstructing", observer=recorder, scanner=scanner
        )
        score = _score_map(scored, working, bundle, settings, null)
        maxima = slice_maxima(score, working.body)
        null = null.adapted_to(maxima.tolist())
        grid = (working.geometry, working.source_slices)
        marked = mark(score, working.body, *grid, null, settings.false_alarms)
    kind = Detection if isinstance(loaded, LoadedCT) else PhotographDetection
    source_image = loaded.volume if isinstance(loaded, LoadedCT) else loaded.photograph
    return kind(
        working=WorkingResult(
            measured=working.measured,
            reconstruction=working.values_of(scored.reconstruction.numpy()),
            score=score,
            regions=marked.regions,
            body=working.body,
            geometry=working.geometry,
            source_slices=working.source_slices,
        ),
        geometry=source_image.geometry,
        source=source_image,
        slices=slice_scores(maxima, *grid, null),
        findings=marked.findings,
        threshold=marked.threshold,
        null_maxima=null.maxima,
        prior=bundle.identity(),
        settings=asked.to_dict()
        | {"device": device, "null": null.identity(), "noise_levels": _levels(sampler.levels)},
        input=loaded.description,
        timing={
            "total_s": round(time.perf_counter() - start, 3),
            "network_s": round(meter.seconds, 3),
            "network_evaluations": meter.evaluations,
            "null_s": round(null_seconds, 3),
        },
        notices=(
            *loaded.notices,
            *grid_notices(working),
            *neighbour_notices(asked.score, settings.score, *stack),
            *null_notices,
            *range_notices(sampler.levels, bundle.denoiser),
            *level_notices(null),
        ),
    )


def pick_device(name: str) -> str:
    """The torch device behind auto, cpu, cuda or cuda:N; raises ResourceError for one that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    devices = {"cpu", *(["cuda"] if torch.cuda.is_available() else [])}
    if name in devices | {f"cuda:{number}" for number in range(torch.cuda.device_count())}:
        return name
    raise ResourceError(f"the device '{name}' is not available here; use auto or cpu")


def read_input(
    path: Path | Sequence[Path],
    prior: PriorBundle,
    *,
    series: str | None = None,
    item: int | None = None,
    stack: Path | None = None,
) -> Loaded:
    """Read what a prior is of: a CT as `read_ct` does, projections as `read_projections` does, or a photograph
    as `read_photograph` does.

    Raises InputError as these do; UsageError for a `series` of projections or a photograph, and an `item` or
    `stack` of anything but the projections that have them.
    """
    if isinstance(path, Path) and path.exists() and find_format(path) is not None:
        if series is not None:
            raise UsageError(f"{path} holds CT projections, which have no series to choose: leave the series out")
        return read_projections(path, item=item, stack=stack)
    ReadOptions(item, stack).check(f"{path if isinstance(path, Path) else 'the input'} is no projection data")
    if prior.grid is not None:
        return read_ct(path, series=series)
    if series is not None:
        raise UsageError(f"the prior '{prior.name}' is of photographs, which have no series: leave the series out")
    if not isinstance(path, Path):
        raise UsageError(f"the prior '{prior.name}' is of photographs, which are read one at a time: name one file")
    return read_photograph(path)


def _load(source: Source, prior: PriorBundle) -> Loaded:
    if isinstance(source, (LoadedCT, LoadedPhotograph, Projections)):
        return source
    if isinstance(source, Photograph):
        height, width, channels = source.pixels.shape
        return LoadedPhotograph(source, {"format": "array", "size": (width, height), "channels": channels})
    if isinstance(source, CTVolume):
        geometry = source.geometry
        return LoadedCT(source, {"format": "array", "size": geometry.size, "spacing_mm": geometry.spacing})
    return read_input(Path(source) if isinstance(source, str) else source, prior)


def _on_the_priors_grid(
    loaded: LoadedCT | LoadedPhotograph, prior: PriorBundle
) -> WorkingVolume | WorkingPhotograph:
    """What was read, as the prior can look at it; raises InputError for a CT with a prior of photographs and the
    other way round."""
    if isinstance(loaded, LoadedCT):
        if prior.grid is None:
            raise InputError(
                f"this is a CT, but the prior '{prior.name}' is of photographs; "
                "name a prior of CT or give a picture"
            )
        return to_working_grid(loaded.volume, prior.grid)
    name = str(loaded.description.get("file", "the photograph"))
    if prior.grid is not None:
        raise InputError(
            f"{name} is a photograph, but the prior '{prior.name}' is of CT; "
            "name a prior of photographs or give a CT"
        )
    denoiser = prior.denoiser
    return fit_prior(loaded.photograph, name, denoiser.image_shape, denoiser.channels, prior.name)


def _settings(settings: DetectionSettings | None, choices: dict[str, Any]) -> DetectionSettings:
    if settings is not None and choices:
        raise UsageError("give either settings or single choices, not both")
    unknown = set(choices) - set(inspect.signature(choose_settings).parameters)
    if unknown:
        raise UsageError(f"unknown setting: {', '.join(sorted(unknown))}")
    return settings or choose_settings(**choices)


def _score_map(
    scored: ScoredSlices,
    working: WorkingVolume | WorkingPhotograph,
    bundle: PriorBundle,
    settings: DetectionSettings,
    null: NullDistribution,
) -> FloatArray:
    """The score map [n, h, w] inside the body; raises KlipError when the computation broke down."""
    one_stack = np.zeros(len(working.body), dtype=np.int64)
    found = score_map(scored.density, scored.reconstruction, settings.score, bundle, null.scales, one_stack)
    score = np.where(working.body, found, np.float32(0))
    if not np.isfinite(score).all():
        raise KlipError("the reconstruction did not stay finite; the prior or the settings are at fault")
    return score


def _null(
    bundle: PriorBundle, settings: DetectionSettings, device: str, watch: Watch
) -> tuple[NullDistribution, tuple[str, ...]]:
    """The null distribution for these settings, measured now where none is known, and what to say about it."""
    notices = []
    null = known_null(bundle, settings)
    if null is None:
        null = calibrate(bundle, settings, device, count=NULL_SLICES_ON_DEMAND, watch=watch)
        notices.append(
            f"No null distribution was known for these settings; one was made from {null.source}{_keep(null)}. "
            "`klip-engine calibrate` makes a finer one."
        )
    return null, (*notices, *null.rate_notices(settings.false_alarms))


def _levels(levels: Sequence[float]) -> dict[str, Any]:
    """The noise levels that ran, in the prior's unit."""
    return {"count": len(levels), "highest": levels[0], "lowest": levels[-1]}


def _keep(null: NullDistribution) -> str:
    """Keep it in the user's cache where that can be written; words that say which."""
    try:
        null.save(user_cache() / "null")
    except KlipError:
        return ", but it could not be kept (the cache folder cannot be written)"
    return " and kept"
