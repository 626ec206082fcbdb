"""Posterior samplers: each yields (sigma, prior mean, posterior mean) per noise level."""

from klip_engine.samplers.base import ItemNoise, Measurement, Sampler, Step, seeded_generator
from klip_engine.samplers.ddpm import DDPM
from klip_engine.samplers.dds import DDS
from klip_engine.samplers.diffusion import ancestral_step, karras_levels, noise_levels, sample_prior
from klip_engine.samplers.dps import DPS
from klip_engine.samplers.padis import PaDIS
from klip_engine.samplers.predictor_corrector import PredictorCorrector
from klip_engine.samplers.registry import SAMPLERS, build_sampler

__all__ = [
    "DDPM",
    "DDS",
    "DPS",
    "SAMPLERS",
    "ItemNoise",
    "Measurement",
    "PaDIS",
    "PredictorCorrector",
    "Sampler",
    "Step",
    "ancestral_step",
    "build_sampler",
    "karras_levels",
    "noise_levels",
    "sample_prior",
    "seeded_generator",
]
