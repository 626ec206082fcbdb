"""The whole task in one call: a CT goes in, suspicious regions come out."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from klip_engine.calibration import calibrate, known_null, user_cache
from klip_engine.detection import Detection, Finding, SliceScore, WorkingResult
from klip_engine.errors import ResourceError, UsageError
from klip_engine.io import LoadedCT, read_ct
from klip_engine.measurement import build_scanner
from klip_engine.priors import PriorBundle, load_prior
from klip_engine.samplers import build_sampler
from klip_engine.scoring.null import NullDistribution
from klip_engine.scoring.regions import Region, find_regions
from klip_engine.scoring.score_map import block_maps, combine_blocks, slice_maxima
from klip_engine.settings import DetectionSettings, choose_settings
from klip_engine.slices import NetworkMeter, ScoredSlices, Watch, score_slices
from klip_engine.volume import CTVolume, WorkingVolume, to_working_grid

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
    try:
        loaded = _load(source)
        device = pick_device(settings.device)
        bundle = prior if isinstance(prior, PriorBundle) else load_prior(prior, device)
        working = to_working_grid(loaded.volume, bundle.grid)
        meter = NetworkMeter(bundle.denoiser, watch)
        scored = _reconstruct(working, bundle, settings, device, meter)
        null, null_notices = _null(bundle, settings, device, watch)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ResourceError(
            "the memory gave out; lower batch_slices, choose another device or close other programs"
        ) from error
    score = combine_blocks(
        block_maps(scored.density[:, 0], settings.score.blocks(bundle.grid.pixel_mm)), null.scales
    )
    threshold = null.threshold(settings.false_alarms)
    labels, regions = find_regions(score, working.body, threshold)
    slices = _slice_scores(working, slice_maxima(score, working.body), null)
    return Detection(
        working=WorkingResult(
            measured=working.hu,
            reconstruction=1000 * scored.reconstruction.numpy(),
            score=np.where(working.body, score, 0).astype(np.float32),
            regions=labels,
            body=working.body,
            geometry=working.geometry,
        ),
        geometry=loaded.volume.geometry,
        source=loaded.volume,
        slices=slices,
        findings=tuple(_finding(region, working, slices, null) for region in regions),
        threshold=threshold,
        prior=bundle.identity(),
        settings={"null_slices": len(null.maxima)} | settings.to_dict() | {"device": device},
        input=loaded.description,
        timing={
            "total_s": round(time.perf_counter() - start, 3),
            "network_s": round(meter.seconds, 3),
            "network_evaluations": meter.evaluations,
        },
        notices=(*loaded.notices, *_grid_notices(working), *null_notices),
    )


def pick_device(name: str) -> str:
    """The torch device behind auto, cpu or cuda; raises UsageError for a device that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu" or (name.split(":", maxsplit=1)[0] == "cuda" and torch.cuda.is_available()):
        return name
    raise UsageError(f"the device '{name}' is not available here; use auto or cpu")


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
    try:
        return settings or choose_settings(**choices)
    except TypeError as error:
        raise UsageError(f"unknown setting: {error}") from error


def _reconstruct(
    working: WorkingVolume,
    bundle: PriorBundle,
    settings: DetectionSettings,
    device: str,
    meter: NetworkMeter,
) -> ScoredSlices:
    sampling = settings.sampling
    sampler = build_sampler(
        sampling.sampler, steps=sampling.steps, sigma_max=sampling.sigma_max, sigma_min=sampling.sigma_min
    )
    return score_slices(
        torch.from_numpy((working.hu / 1000).clip(-1, 1))[:, None],
        build_scanner(settings.operator, bundle.grid, settings.seed),
        meter,
        sampler,
        [settings.score.term],
        samples=sampling.samples,
        seed=settings.seed,
        batch_slices=settings.batch_slices,
        device=device,
    )


def _null(
    bundle: PriorBundle, settings: DetectionSettings, device: str, watch: Watch
) -> tuple[NullDistribution, tuple[str, ...]]:
    """The null distribution for these settings, measured now where none is known, and what to say about it."""
    notices = []
    null = known_null(bundle, settings)
    if null is None:
        null = calibrate(bundle, settings, device, count=NULL_SLICES_ON_DEMAND, watch=watch)
        null.save(user_cache() / "null")
        notices.append(
            f"No null distribution was known for these settings; one was made from {NULL_SLICES_ON_DEMAND} "
            "slices drawn from the prior and kept. `klip-engine calibrate` makes a finer one."
        )
    if settings.false_alarms < null.finest_rate:
        notices.append(
            f"The null distribution cannot tell rates of false alarms below {null.finest_rate:.3g} apart; "
            f"{null.finest_rate:.3g} was used instead of {settings.false_alarms:.3g}."
        )
    return null, tuple(notices)


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


def _finding(
    region: Region, working: WorkingVolume, slices: tuple[SliceScore, ...], null: NullDistribution
) -> Finding:
    x, y, z = working.geometry.to_lps(region.centroid)
    ends = slices[region.first_slice].index, slices[region.last_slice].index
    return Finding(
        region.label,
        region.score,
        null.p_value(region.score),
        (float(x), float(y), float(z)),
        region.voxels * float(np.prod(working.geometry.spacing)) / 1000,
        (min(ends), max(ends)),
    )


def _grid_notices(working: WorkingVolume) -> tuple[str, ...]:
    if working.cut_off < 0.002:
        return ()
    return (
        f"{100 * working.cut_off:.1f} % of the body lies outside the prior's field of view and was not looked at.",
    )
