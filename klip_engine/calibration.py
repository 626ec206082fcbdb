"""Null distributions: slices without anomaly, real or drawn from the prior, measured and scored like any other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from klip_engine.drawing import draw_healthy
from klip_engine.errors import InputError, PriorError, UsageError, resource_errors
from klip_engine.io import read_ct
from klip_engine.io.sources import Source, healthy_runs
from klip_engine.priors import PriorBundle, ReferenceSlices, load_reference, save_reference, whole_hu
from klip_engine.scoring.null import UNRAISED, NullDistribution, find_null, null_from_scores
from klip_engine.scoring.score_map import (
    PlaceArray,
    Scales,
    block_maps,
    block_scales,
    combine_blocks,
    slice_maxima,
    terms_over_neighbours,
)
from klip_engine.settings import DetectionSettings, ScoreSettings
from klip_engine.slices import NetworkMeter, ScoredSlices, Watch, check_variance, places, score_images
from klip_engine.stacks import StackArray, between_neighbours, have_neighbours, standing_alone, within_reach
from klip_engine.volume import BoolArray, FloatArray
from klip_engine.working_grid import WorkingGrid, images_of_hu, to_working_grid

DRAWN_SLICES = 256
DRAWN = "drawn"
_RUN = 5
"""Neighbouring slices of a scan that are kept together: three of them lie between two others."""
_FEWEST_COMPARED = 8
"""Healthy slices between two neighbours; with fewer there is nothing to compare with."""
_NULL_SEED = 2_000_003
"""The null belongs to the settings, not to a run: its seed is its own."""


def calibrate(
    prior: PriorBundle,
    settings: DetectionSettings,
    device: str,
    *,
    healthy: ReferenceSlices | None = None,
    count: int | None = None,
    watch: Watch | None = None,
) -> NullDistribution:
    """The null distribution for these settings, measured on slices without anomaly; see `calibrate_scores`."""
    return calibrate_scores(prior, settings, [settings.score], device, healthy=healthy, count=count, watch=watch)[0]


def calibrate_scores(
    prior: PriorBundle,
    settings: DetectionSettings,
    scores: Sequence[ScoreSettings],
    device: str,
    *,
    healthy: ReferenceSlices | None = None,
    count: int | None = None,
    watch: Watch | None = None,
) -> list[NullDistribution]:
    """The null distributions of several scores from the same posterior samples, measured on slices without anomaly:
    one each, but for a score of neighbouring slices that of slices alone where the healthy ones have no neighbours.

    healthy: real healthy slices; by default those kept beside the prior; where there are none, slices are drawn
    from the prior (healthy by construction, but cruder than real ones). count: at most so many of them; by default
    all, or `DRAWN_SLICES` drawn ones. The settings' own seed is not used.
    """
    with resource_errors():
        meter = NetworkMeter(prior.on(device).denoiser, watch or Watch())
        check_variance(prior, scores, device)
        settings = replace(settings, seed=_NULL_SEED)
        healthy = healthy or _kept_reference(prior)
        scores = [_usable(score, healthy) for score in scores]
        if healthy is not None:
            key = healthy.digest()
            healthy = _thinned(healthy, scores, count)
            images, body = images_of_hu(healthy.hu), healthy.body
        else:
            images, body = draw_healthy(prior, count or DRAWN_SLICES, settings, device, meter)
            key = DRAWN
        scored = score_images(images, prior, settings, device, meter, "calibrating", scores)
        nulls = []
        stack = None if healthy is None else healthy.stack
        for score, (maxima, scales) in zip(scores, _usual(scored, body, stack, scores, prior), strict=True):
            wanted = replace(settings, score=score).null_settings(prior.sha256, key)
            if healthy is None:
                source = f"{len(body)} slices drawn from the prior"
                nulls.append(null_from_scores(maxima.tolist(), scales, wanted, source))
            else:
                null = null_from_scores(maxima.tolist(), scales, wanted, healthy.describe(score.neighbours))
                nulls.append(null.raised(*healthy.unseen.get(null.score_name, UNRAISED)))
        return nulls


def highest_scores(
    prior: PriorBundle,
    settings: DetectionSettings,
    scores: Sequence[ScoreSettings],
    nulls: Sequence[NullDistribution],
    device: str,
    healthy: ReferenceSlices,
    *,
    watch: Watch | None = None,
) -> list[FloatArray]:
    """The highest scores of other healthy slices in the units (`NullDistribution.scales`) of null distributions
    made with the same settings, one array for each score; for scores among neighbours of the slices between two
    others, then of those that stand alone."""
    with resource_errors():
        meter = NetworkMeter(prior.on(device).denoiser, watch or Watch())
        settings = replace(settings, seed=_NULL_SEED)
        images = images_of_hu(healthy.hu)
        scored = score_images(images, prior, settings, device, meter, "calibrating", scores)
        units = [null.scales for null in nulls]
        return [maxima for maxima, _ in _usual(scored, healthy.body, healthy.stack, scores, prior, units)]


def _usual(
    scored: ScoredSlices,
    body: BoolArray,
    stack: StackArray | None,
    scores: Sequence[ScoreSettings],
    prior: PriorBundle,
    units: Sequence[Scales] | None = None,
) -> Iterator[tuple[FloatArray, Scales]]:
    """Of every score the highest scores of the slices, and the scales of its maps: those given, or else what is
    typical of these slices."""
    densities = scored.density.split([len(score.terms) for score in scores], dim=1)
    for number, (score, density) in enumerate(zip(scores, densities, strict=True)):
        given = None if units is None else units[number]
        there = places(scored.reconstruction, score, prior)
        if score.neighbours and stack is not None:
            yield _usual_among(density, body, there, stack, score, given, prior)
        else:
            yield _usual_alone(density, body, there, score, given, prior)


def _thinned(healthy: ReferenceSlices, scores: Sequence[ScoreSettings], count: int | None) -> ReferenceSlices:
    """At most `count` of the slices, where a score looks at neighbours whole stacks of them; raises UsageError
    where so few leave none between two others."""
    if count is None:
        return healthy
    if not any(score.neighbours for score in scores):
        return healthy.evenly(count)
    for chosen in (healthy.whole_stacks(count), healthy.stacked().whole_stacks(count)):
        if all(_usable(score, chosen) == score for score in scores):
            return chosen
    raise UsageError(
        f"among {count} of the healthy slices too few lie between two others of their scan: take more, or all"
    )


def _usual_alone(
    density: torch.Tensor,
    body: BoolArray,
    there: PlaceArray | None,
    score: ScoreSettings,
    scales: Scales | None,
    prior: PriorBundle,
) -> tuple[FloatArray, Scales]:
    """The highest score of each null slice, and the scales of the score's maps: by default those of the slices."""
    blocks = score.blocks(prior.pixel_size)
    maps = block_maps(density, blocks)
    if scales is None:
        quantiles = [term.unit_quantile for term in score.terms for _ in blocks]
        scales = block_scales(maps, body, quantiles, there)
    return slice_maxima(combine_blocks(maps, scales, there), body), scales


def _usual_among(
    density: torch.Tensor,
    body: BoolArray,
    there: PlaceArray | None,
    stack: StackArray,
    score: ScoreSettings,
    scales: Scales | None,
    prior: PriorBundle,
) -> tuple[FloatArray, Scales]:
    """The same of slices between two neighbours.

    Slices that stand alone count, too, as they are of more patients: with their own highest score times what
    neighbours usually make of it, the median ratio over the slices that have both.
    """
    between, alone = between_neighbours(stack), standing_alone(stack)
    part = None if there is None else there[between]
    among = terms_over_neighbours(density, score.terms, stack)[between]
    maxima, scales = _usual_alone(among, body[between], part, score, scales, prior)
    maps = block_maps(density, score.blocks(prior.pixel_size))
    own = slice_maxima(combine_blocks(maps, scales, there), body)
    shown = own[between] > 0
    ratio = np.median(maxima[shown] / own[between][shown]) if shown.any() else 1.0
    return np.concatenate([maxima, np.float32(ratio) * own[alone]]), scales


def usable_score(score: ScoreSettings, prior: PriorBundle, slices: int, spacing_mm: float) -> ScoreSettings:
    """The score as it can be used on a scan of so many slices at this distance: alone where these have no
    neighbours, or the slices beside the prior have none to compare with."""
    if not score.neighbours or not have_neighbours(slices, spacing_mm):
        return score.alone
    return _usable(score, _kept_reference(prior))


def usable_variants(
    score: ScoreSettings, prior: PriorBundle, healthy: ReferenceSlices | None = None
) -> tuple[ScoreSettings, ...]:
    """The score among neighbours, where the healthy slices have any, and that of slices alone; healthy: by default
    those beside the prior."""
    healthy = healthy or _kept_reference(prior)
    return tuple(dict.fromkeys(_usable(one, healthy) for one in score.variants))


def _usable(score: ScoreSettings, healthy: ReferenceSlices | None) -> ScoreSettings:
    """The score, alone where too few of the healthy slices lie between two neighbours."""
    stacked = 0 if healthy is None else int(between_neighbours(healthy.stack).sum())
    return score if stacked >= _FEWEST_COMPARED else score.alone


def healthy_reference(
    sources: Sequence[Source],
    grid: WorkingGrid,
    per_scan: int,
    watch: Watch,
    *,
    runs: bool = True,
) -> ReferenceSlices:
    """Healthy slices on a prior's grid, at most `per_scan` of each scan, evenly spread; runs: in runs of up to five
    neighbours.

    Raises InputError when a scan cannot be read or no healthy slice is left.
    """
    hu, body, scan, stack = [], [], [], []
    for number, source in enumerate(sources):
        watch.check()
        working = to_working_grid(read_ct(source.path).volume, grid)
        length = _RUN if runs and within_reach(working.geometry.spacing[2]) else 1
        for run in healthy_runs(source, working, per_scan, length):
            hu.append(whole_hu(working.hu[run]))
            body.append(working.body[run])
            scan += [number] * len(run)
            stack += [len(hu)] * len(run)
        watch.tell("reading", number + 1, len(sources))
    if not scan:
        raise InputError("the healthy scans hold no healthy slice: check the ranges in the column 'slices'")
    return ReferenceSlices(np.concatenate(hu), np.concatenate(body), np.array(scan), np.array(stack))


def healthy_key(prior: PriorBundle) -> str:
    """Which healthy slices null distributions of this prior are measured on: a digest, or `DRAWN`."""
    kept = _kept_reference(prior)
    return DRAWN if kept is None else kept.digest()


def _kept_reference(prior: PriorBundle) -> ReferenceSlices | None:
    """The healthy slices beside a prior; those of photographs have none."""
    return None if prior.grid is None else load_reference(prior.folder, prior.grid.shape)


def keep_reference(prior: PriorBundle, slices: ReferenceSlices) -> None:
    """Make these the healthy slices beside the prior; null distributions measured on others are removed."""
    save_reference(prior.folder, slices)
    for path in (prior.folder / "null").glob("*.json"):
        try:
            stale = json.loads(path.read_text(encoding="utf-8"))["settings"]["healthy"] != slices.digest()
        except (ValueError, KeyError, TypeError):
            stale = True
        if stale:
            path.unlink()


def known_null(prior: PriorBundle, settings: DetectionSettings) -> NullDistribution | None:
    """The stored null distribution for these settings: the bundle's, else one in the user's cache.

    A damaged one in the bundle raises PriorError; in the cache it counts as missing.
    """
    wanted = settings.null_settings(prior.sha256, healthy_key(prior))
    shipped = find_null(prior.folder / "null", wanted)
    if shipped is not None:
        return shipped
    try:
        return find_null(user_cache() / "null", wanted)
    except PriorError:
        return None


def user_cache() -> Path:
    """The engine's cache folder: $KLIP_CACHE, else the platform's usual place."""
    if "KLIP_CACHE" in os.environ:
        return Path(os.environ["KLIP_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "klip-engine"
