"""Null distributions: slices drawn from the prior itself, measured and scored like any other."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from klip_engine.errors import PriorError, resource_errors
from klip_engine.priors import PriorBundle
from klip_engine.samplers import ItemNoise, sample_prior
from klip_engine.scoring.null import NullDistribution, find_null, null_from_scores
from klip_engine.scoring.score_map import block_maps, block_scales, combine_blocks, slice_maxima
from klip_engine.settings import DetectionSettings
from klip_engine.slices import NetworkMeter, Watch, score_hu
from klip_engine.volume import AIR_HU, BoolArray, FloatArray, body_mask

DRAW_STEPS = 60
_NULL_SEED = 0
_DRAW_SEED = 1_000_003
"""The null belongs to the settings, not to a run: its seeds are its own, and drawn slices and their
reconstruction do not share noise."""


def calibrate(
    prior: PriorBundle,
    settings: DetectionSettings,
    device: str,
    *,
    count: int = 256,
    watch: Watch | None = None,
) -> NullDistribution:
    """The null distribution for these settings: `count` slices drawn from the prior, measured and scored.

    A slice the prior draws is healthy by construction, so whatever pulls at it is what the method does to
    anatomy the prior knows. The settings' seed is not used.
    """
    with resource_errors():
        meter = NetworkMeter(prior.on(device).denoiser, watch or Watch())
        settings = replace(settings, seed=_NULL_SEED)
        hu = draw_slices(prior, count, settings, device, meter)
        body = np.concatenate([body_mask(one[None], prior.grid.pixel_mm) for one in hu])
        hu[~body] = AIR_HU
        return null_of_slices(hu, body, prior, settings, device, meter)


def null_of_slices(
    hu: FloatArray,
    body: BoolArray,
    prior: PriorBundle,
    settings: DetectionSettings,
    device: str,
    meter: NetworkMeter,
) -> NullDistribution:
    """The null distribution that slices hu [n, h, w] without anomaly give; body [n, h, w]."""
    scored = score_hu(hu, prior, settings, device, meter, "calibrating")
    maps = block_maps(scored.density[:, 0], settings.score.blocks(prior.grid.pixel_mm))
    scales = block_scales(maps, body)
    maxima = slice_maxima(combine_blocks(maps, scales), body)
    return null_from_scores(maxima.tolist(), scales, settings.null_settings(prior.sha256))


def draw_slices(
    prior: PriorBundle, count: int, settings: DetectionSettings, device: str, meter: NetworkMeter
) -> FloatArray:
    """Slices drawn from the prior, [count, h, w] in HU."""
    batch = settings.batch_slices * settings.sampling.samples
    drawn = np.empty((count, *prior.grid.shape), dtype=np.float32)
    for first in range(0, count, batch):
        items = [(number, 0) for number in range(first, min(first + batch, count))]
        noise = ItemNoise(settings.seed + _DRAW_SEED, items, (1, *prior.grid.shape), device)
        images = sample_prior(meter, noise, DRAW_STEPS).clamp(-1, 1).cpu()
        drawn[first : first + len(items)] = 1000 * images[:, 0].numpy()
        meter.watch.tell("drawing healthy slices", first + len(items), count)
    return drawn


def known_null(prior: PriorBundle, settings: DetectionSettings) -> NullDistribution | None:
    """The stored null distribution for these settings: the bundle's, else one in the user's cache.

    A damaged one in the bundle raises PriorError; in the cache it counts as missing.
    """
    wanted = settings.null_settings(prior.sha256)
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
