"""Diffusion priors: denoisers that know healthy anatomy."""

from klip_engine.priors.base import Denoiser, PriorMean
from klip_engine.priors.bundle import PriorBundle, load_prior, save_bundle

__all__ = ["Denoiser", "PriorBundle", "PriorMean", "load_prior", "save_bundle"]
