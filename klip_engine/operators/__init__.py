"""Measurements: linear operators (CT scans, blur, identity), filtered back-projection and noise."""

from klip_engine.operators.base import LinearOperator
from klip_engine.operators.blur import GaussianBlur
from klip_engine.operators.channelwise import Channelwise
from klip_engine.operators.ct import CTOperator, matrix_cache
from klip_engine.operators.fbp import filtered_back_projection
from klip_engine.operators.geometry import (
    DEFAULT_IMAGE_SHAPE,
    DEFAULT_PIXEL_SPACING_MM,
    FanCurvedGeometry,
    FanFlatGeometry,
    FanGeometry,
    ParallelGeometry,
    ScanGeometry,
    geometry_from_dict,
)
from klip_engine.operators.identity import Identity
from klip_engine.operators.noise import (
    MU_WATER_PER_MM,
    NOISE_PRESETS,
    GaussianNoise,
    NoiseModel,
    NoisyMeasurement,
    TransmissionNoise,
    hu_to_mu,
    line_integrals_of_hu,
    mu_to_hu,
    noise_preset,
)
from klip_engine.operators.registry import OPERATORS, build_operator

__all__ = [
    "DEFAULT_IMAGE_SHAPE",
    "DEFAULT_PIXEL_SPACING_MM",
    "MU_WATER_PER_MM",
    "NOISE_PRESETS",
    "OPERATORS",
    "CTOperator",
    "Channelwise",
    "FanCurvedGeometry",
    "FanFlatGeometry",
    "FanGeometry",
    "GaussianBlur",
    "GaussianNoise",
    "Identity",
    "LinearOperator",
    "NoiseModel",
    "NoisyMeasurement",
    "ParallelGeometry",
    "ScanGeometry",
    "TransmissionNoise",
    "build_operator",
    "filtered_back_projection",
    "geometry_from_dict",
    "hu_to_mu",
    "line_integrals_of_hu",
    "matrix_cache",
    "mu_to_hu",
    "noise_preset",
]
