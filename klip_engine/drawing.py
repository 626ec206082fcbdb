"""Healthy slices drawn from a prior: what null distributions are made of where no real ones are kept beside it."""

from __future__ import annotations

import numpy as np

from klip_engine.body import body_mask
from klip_engine.priors import PriorBundle, ReferenceSlices
from klip_engine.samplers import ItemNoise, sample_prior
from klip_engine.settings import DetectionSettings
from klip_engine.slices import NetworkMeter
from klip_engine.volume import AIR_HU, BoolArray, FloatArray
from klip_engine.working_grid import WorkingVolume, images_of_hu

DRAW_STEPS = 60
_DRAW_SEED = 1_000_003
"""Not that of null distributions: drawn slices and their reconstruction do not share noise."""


def drawn_slices(
    prior: PriorBundle, count: int, settings: DetectionSettings, device: str, meter: NetworkMeter
) -> ReferenceSlices:
    """Slices drawn from a prior of CT, without what lies outside their body."""
    hu = draw_slices(prior, count, settings, device, meter)
    body = np.concatenate([body_mask(one[None], prior.ct_grid.pixel_mm) for one in hu])
    hu[~body] = AIR_HU
    return ReferenceSlices(hu, body, np.arange(count), np.arange(count))


def draw_slices(
    prior: PriorBundle, count: int, settings: DetectionSettings, device: str, meter: NetworkMeter
) -> FloatArray:
    """Slices drawn from a prior of CT, [count, h, w] in HU."""
    return WorkingVolume.values_of(draw_images(prior, count, settings, device, meter))


def draw_images(
    prior: PriorBundle, count: int, settings: DetectionSettings, device: str, meter: NetworkMeter
) -> FloatArray:
    """Images drawn from the prior, [count, channels, h, w] in [-1, 1]."""
    batch = settings.batch_slices * settings.sampling.samples
    shape = (prior.denoiser.channels, *prior.denoiser.image_shape)
    drawn = np.empty((count, *shape), dtype=np.float32)
    for first in range(0, count, batch):
        items = [(number, 0) for number in range(first, min(first + batch, count))]
        noise = ItemNoise(settings.seed + _DRAW_SEED, items, shape, device)
        drawn[first : first + len(items)] = sample_prior(meter, noise, DRAW_STEPS).clamp(-1, 1).cpu().numpy()
        meter.watch.tell("drawing healthy slices", first + len(items), count)
    return drawn


def draw_healthy(
    prior: PriorBundle, count: int, settings: DetectionSettings, device: str, meter: NetworkMeter
) -> tuple[FloatArray, BoolArray]:
    """Drawn images [count, channels, h, w] and where to look at them, [count, h, w]: a photograph is all body."""
    if prior.grid is None:
        images = draw_images(prior, count, settings, device, meter)
        return images, np.ones((count, *images.shape[-2:]), dtype=bool)
    slices = drawn_slices(prior, count, settings, device, meter)
    return images_of_hu(slices.hu), slices.body
