"""Methods of comparison, each in one file with its source: all score the same reconstructions."""

from klip_engine.evaluation.baselines.base import Baseline, Evidence, Scores
from klip_engine.evaluation.baselines.classic import ReedXiaoli
from klip_engine.evaluation.baselines.diffpath import DiffPath
from klip_engine.evaluation.baselines.likelihood import Likelihood
from klip_engine.evaluation.baselines.partial_diffusion import PartialDiffusion
from klip_engine.evaluation.baselines.residual import Residual

BASELINES: dict[str, Baseline] = {
    "likelihood": Likelihood(),
    "diffpath": DiffPath(),
    "partial-diffusion": PartialDiffusion(),
    "residual": Residual(),
    "classic": ReedXiaoli(),
}
"""In the order of the tables."""

__all__ = [
    "BASELINES",
    "Baseline",
    "DiffPath",
    "Evidence",
    "Likelihood",
    "PartialDiffusion",
    "ReedXiaoli",
    "Residual",
    "Scores",
]
