"""Diffusion priors: denoisers that know healthy anatomy."""

from klip_engine.priors.base import Denoiser, PatchTiled, PriorMean
from klip_engine.priors.bundle import PriorBundle, load_prior, save_bundle
from klip_engine.priors.reference import ReferenceSlices, load_reference, save_reference, whole_hu

__all__ = [
    "Denoiser",
    "PatchTiled",
    "PriorBundle",
    "PriorMean",
    "ReferenceSlices",
    "load_prior",
    "load_reference",
    "save_bundle",
    "save_reference",
    "whole_hu",
]
