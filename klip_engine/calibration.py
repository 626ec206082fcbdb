"""Null distributions: slices drawn from the prior itself, measured and scored like any other."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from klip_engine.measurement import build_scanner
from klip_engine.priors import PriorBundle
from klip_engine.samplers import ItemNoise, build_sampler, sample_prior
from klip_engine.scoring.null import NullDistribution, find_null, null_from_scores
from klip_engine.scoring.score_map import block_maps, block_scales, combine_blocks, slice_maxima
from klip_engine.settings import DetectionSettings
from klip_engine.slices import NetworkMeter, Watch, score_slices
from klip_engine.volume import AIR_HU, FloatArray, body_mask

DRAW_STEPS = 40
_DRAW_SEED = 1_000_003
"""Added to the seed for the noise of the drawn slices, which must not be that of their reconstruction."""


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
    healthy anatomy.
    """
    watch = watch or Watch()
    meter = NetworkMeter(prior.denoiser, watch)
    hu = draw_slices(prior, count, settings, device, meter)
    body = np.concatenate([body_mask(one[None], prior.grid.pixel_mm) for one in hu])
    hu[~body] = AIR_HU
    return null_of_slices(hu, body, prior, settings, device, meter)


def null_of_slices(
    hu: FloatArray,
    body: np.ndarray,
    prior: PriorBundle,
    settings: DetectionSettings,
    device: str,
    meter: NetworkMeter,
) -> NullDistribution:
    """The null distribution that slices hu [n, h, w] without anomaly give; body [n, h, w]."""
    sampling = settings.sampling
    images = torch.from_numpy((hu / 1000).clip(-1, 1).astype(np.float32))[:, None]
    scored = score_slices(
        images,
        build_scanner(settings.operator, prior.grid, settings.seed),
        meter,
        build_sampler(
            sampling.sampler, steps=sampling.steps, sigma_max=sampling.sigma_max, sigma_min=sampling.sigma_min
        ),
        [settings.score.term],
        samples=sampling.samples,
        seed=settings.seed,
        batch_slices=settings.batch_slices,
        device=device,
        stage="calibrating",
    )
    maps = block_maps(scored.density[:, 0], settings.score.blocks(prior.grid.pixel_mm))
    scales = block_scales(maps, body)
    maxima = slice_maxima(combine_blocks(maps, scales), body)
    return null_from_scores(maxima.tolist(), scales, settings.null_settings(prior.sha256))


def draw_slices(
    prior: PriorBundle, count: int, settings: DetectionSettings, device: str, meter: NetworkMeter
) -> FloatArray:
    """Slices drawn from the prior, [count, h, w] in HU."""
    batch = settings.batch_slices * settings.sampling.samples
    drawn = []
    for first in range(0, count, batch):
        items = [(number, 0) for number in range(first, min(first + batch, count))]
        noise = ItemNoise(settings.seed + _DRAW_SEED, items, (1, *prior.grid.shape), device)
        drawn.append(sample_prior(meter, noise, DRAW_STEPS).cpu())
        meter.watch.tell("drawing healthy slices", items[-1][0] + 1, count)
    images = torch.cat(drawn)[:, 0].clamp(-1, 1)
    return (1000 * images).numpy()


def null_folders(prior: PriorBundle) -> list[Path]:
    """Where null distributions are looked for: in the bundle, then in the user's cache."""
    return [prior.folder / "null", user_cache() / "null"]


def known_null(prior: PriorBundle, settings: DetectionSettings) -> NullDistribution | None:
    """The stored null distribution for these settings, if there is one."""
    return find_null(null_folders(prior), settings.null_settings(prior.sha256))


def user_cache() -> Path:
    """The engine's cache folder: $KLIP_CACHE, else the platform's usual place."""
    if "KLIP_CACHE" in os.environ:
        return Path(os.environ["KLIP_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "klip-engine"
