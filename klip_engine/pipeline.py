"""The whole task in one call: a CT goes in, suspicious regions come out."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from klip_engine.calibration import calibrate, known_null, user_cache
from klip_engine.detection import Detection, Finding, SliceScore, WorkingResult
from klip_engine.errors import KlipError, ResourceError, UsageError, resource_errors
from klip_engine.io import LoadedCT, read_ct
from klip_engine.priors import PriorBundle, load_prior
from klip_engine.scoring.null import NullDistribution
from klip_engine.scoring.regions import Region, find_regions
from klip_engine.scoring.score_map import block_maps, combine_blocks, slice_maxima
from klip_engine.settings import DetectionSettings, choose_settings
from klip_engine.slices import NetworkMeter, ScoredSlices, Watch, scanner_and_sampler, score_hu
from klip_engine.volume import CTVolume, FloatArray, WorkingVolume, to_working_grid

NULL_SLICES_ON_DEMAND = 64


def detect(
    source: str | Path | CTVolume | LoadedCT,
    prior: str | Path | PriorBundle = "default",
    settings: DetectionSettings | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    **choices: Any,
) -> Detection:
    """Find what does not belong in a CT.

    source: a volume file, DICOM file or folder, a `CTVolume`, or what `read_ct` returned; prior: a built-in
    name, a bundle folder or a loaded prior; settings: everything in detail, or else `choices` as for
    `choose_settings` (operator, views, steps, samples, score, false_alarms, device, seed, preset, ...).
    progress(stage, done, total) is called as the work goes on; when cancelled() is true, Cancelled is raised.
    Raises InputError, UsageError, Cancelled or ResourceError; writes nothing but the null distribution of new
    settings, in the user's cache (see `klip_engine.io.write_results` for the results).
    """
    start = time.perf_counter()
    settings = _settings(settings, choices)
    watch = Watch(progress, cancelled)
    with resource_errors():
        loaded = _load(source)
        device = pick_device(settings.device)
        bundle = prior.on(device) if isinstance(prior, PriorBundle) else load_prior(prior, device)
        scanner_and_sampler(bundle, settings)  # wrong settings are said before anything long begins
        working = to_working_grid(loaded.volume, bundle.ct_grid)
        null_start = time.perf_counter()
        null, null_notices = _null(bundle, settings, device, watch)
        null_seconds = time.perf_counter() - null_start
        meter = NetworkMeter(bundle.denoiser, watch)
        scored = score_hu(working.hu, bundle, settings, device, meter, "reconstructing")
        score = _score_map(scored, working, bundle, settings, null)
        threshold = null.threshold(settings.false_alarms)
        labels, regions = find_regions(score, working.body, threshold)
    slices = _slice_scores(working, slice_maxima(score, working.body), null)
    return Detection(
        working=WorkingResult(
            measured=working.hu,
            reconstruction=1000 * scored.reconstruction.numpy(),
            score=score,
            regions=labels,
            body=working.body,
            geometry=working.geometry,
        ),
        geometry=loaded.volume.geometry,
        source=loaded.volume,
        slices=slices,
        findings=tuple(_finding(region, working, null) for region in regions),
        threshold=threshold,
        prior=bundle.identity(),
        settings=settings.to_dict() | {"device": device, "null": null.identity()},
        input=loaded.description,
        timing={
            "total_s": round(time.perf_counter() - start, 3),
            "network_s": round(meter.seconds, 3),
            "network_evaluations": meter.evaluations,
            "null_s": round(null_seconds, 3),
        },
        notices=(*loaded.notices, *_grid_notices(working), *null_notices),
    )


def pick_device(name: str) -> str:
    """The torch device behind auto, cpu, cuda or cuda:N; raises ResourceError for one that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    devices = {"cpu", *(["cuda"] if torch.cuda.is_available() else [])}
    if name in devices | {f"cuda:{number}" for number in range(torch.cuda.device_count())}:
        return name
    raise ResourceError(f"the device '{name}' is not available here; use auto or cpu")


def _load(source: str | Path | CTVolume | LoadedCT) -> LoadedCT:
    if isinstance(source, LoadedCT):
        return source
    if isinstance(source, CTVolume):
        geometry = source.geometry
        return LoadedCT(source, {"format": "array", "size": geometry.size, "spacing_mm": geometry.spacing})
    return read_ct(Path(source))


def _settings(settings: DetectionSettings | None, choices: dict[str, Any]) -> DetectionSettings:
    if settings is not None and choices:
        raise UsageError("give either settings or single choices, not both")
    unknown = set(choices) - set(inspect.signature(choose_settings).parameters)
    if unknown:
        raise UsageError(f"unknown setting: {', '.join(sorted(unknown))}")
    return settings or choose_settings(**choices)


def _score_map(
    scored: ScoredSlices,
    working: WorkingVolume,
    bundle: PriorBundle,
    settings: DetectionSettings,
    null: NullDistribution,
) -> FloatArray:
    """The score map [n, h, w] inside the body; raises KlipError when the computation broke down."""
    maps = block_maps(scored.density, settings.score.blocks(bundle.ct_grid.pixel_mm))
    score = np.where(working.body, combine_blocks(maps, null.scales), 0).astype(np.float32)
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
    if settings.false_alarms < null.finest_rate:
        notices.append(
            f"The null distribution cannot tell rates of false alarms below {null.finest_rate:.3g} apart; "
            f"{null.finest_rate:.3g} was used instead of {settings.false_alarms:.3g}."
        )
    return null, tuple(notices)


def _keep(null: NullDistribution) -> str:
    """Keep it in the user's cache where that can be written; words that say which."""
    try:
        null.save(user_cache() / "null")
    except KlipError:
        return ", but it could not be kept (the cache folder cannot be written)"
    return " and kept"


def _slice_scores(working: WorkingVolume, maxima: np.ndarray, null: NullDistribution) -> tuple[SliceScore, ...]:
    heights = working.geometry.origin[2] + working.geometry.spacing[2] * np.arange(len(maxima))
    return tuple(
        SliceScore(_source_index(working, z), float(heights[z]), float(score), null.p_value(float(score)))
        for z, score in enumerate(maxima)
    )


def _source_index(working: WorkingVolume, z: int) -> int:
    """The source slice in the middle of a working slice, or the working slice's own number."""
    if working.source_slices is None:
        return z
    first, last = working.source_slices[z]
    return (first + last - 1) // 2


def _slice_range(region: Region, working: WorkingVolume) -> tuple[int, int]:
    """First and last source slice behind a region, or the working slices' own numbers."""
    if working.source_slices is None:
        return region.first_slice, region.last_slice
    ends = working.source_slices[region.first_slice], working.source_slices[region.last_slice]
    return min(first for first, _ in ends), max(last - 1 for _, last in ends)


def _finding(region: Region, working: WorkingVolume, null: NullDistribution) -> Finding:
    x, y, z = working.geometry.to_lps(region.centroid)
    return Finding(
        region.label,
        region.score,
        null.p_value(region.score),
        (float(x), float(y), float(z)),
        region.voxels * float(np.prod(working.geometry.spacing)) / 1000,
        _slice_range(region, working),
    )


def _grid_notices(working: WorkingVolume) -> tuple[str, ...]:
    if working.cut_off < 0.002:
        return ()
    return (
        f"{100 * working.cut_off:.1f} % of the body lies outside the prior's field of view and was not looked at.",
    )
