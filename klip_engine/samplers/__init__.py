"""Posterior samplers: each yields (sigma, prior mean, posterior mean) per noise level."""

from klip_engine.samplers.base import ItemNoise, Measurement, Sampler, Step, seeded_generator
from klip_engine.samplers.dds import DDS
from klip_engine.samplers.diffusion import ancestral_step, noise_levels, sample_prior
from klip_engine.samplers.registry import SAMPLERS, build_sampler

__all__ = [
    "DDS",
    "SAMPLERS",
    "ItemNoise",
    "Measurement",
    "Sampler",
    "Step",
    "ancestral_step",
    "build_sampler",
    "noise_levels",
    "sample_prior",
    "seeded_generator",
]
