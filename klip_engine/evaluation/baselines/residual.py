"""What the reconstruction fails to explain of the measurement: the discrepancy of inverse problems.

Morozov, "On the solution of functional equations by the method of regularization", Soviet Mathematics Doklady 7,
1966, 414-417: |A x - y|^2 in units of the noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from klip_engine.evaluation.baselines.base import Evidence, Scores
from klip_engine.priors import Denoiser


@dataclass(frozen=True)
class Residual:
    """|A x - y|^2 / variance, a slice's score its mean over the measurement: 1 where only noise is left.

    The map is the absolute value of the residual brought back to the image by the operator's pseudo-inverse
    (filtered back-projection for CT), in the image's unit.
    """

    name = "measurement residual"
    source = "discrepancy, Morozov 1966"
    evaluations = 0

    def fitted(self, denoiser: Denoiser, healthy: Evidence, seed: int) -> Residual:
        """Itself: it knows the measurement alone."""
        return self

    def score(self, denoiser: Denoiser, evidence: Evidence, seed: int) -> Scores:
        """See `Baseline`; nothing in it is random."""
        measurement = evidence.measurement
        with torch.no_grad():
            residual = measurement.operator.forward(evidence.reconstruction) - measurement.data
            back = measurement.operator.pseudo_inverse(residual)
        in_units_of_noise = residual.square() / measurement.variance
        return Scores(back[:, 0].abs(), in_units_of_noise.flatten(start_dim=1).mean(dim=1))
