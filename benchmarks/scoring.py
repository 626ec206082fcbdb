"""KLIP against the closed-form KL divergence of Gaussians: error by noise levels, and the split over blocks.

    python benchmarks/scoring.py

Prior N(0.1, 0.25 I) on 6 x 8 pixels; identity operator and 4 parallel views; 512 posterior samples by DDS.
"""

from __future__ import annotations

import argparse
import math

import torch

from klip_engine.operators import LinearOperator, build_operator
from klip_engine.priors import PriorMean
from klip_engine.samplers import DDS, ItemNoise, Measurement
from klip_engine.scoring.klip import KlipAccumulator, ScoreTerm, tile_sums

SHAPE, SAMPLES, MEAN, VARIANCE = (6, 8), 512, 0.1, 0.25


class GaussianPrior:
    """The exact denoiser of N(mean, variance I)."""

    image_shape, data_variance, sigma_min, sigma_max = SHAPE, VARIANCE, 1e-4, 1e3

    def denoise(self, x: torch.Tensor, sigma: float) -> PriorMean:
        return PriorMean((VARIANCE * x + sigma**2 * MEAN) / (VARIANCE + sigma**2))


def klip(operator: LinearOperator, data: torch.Tensor, noise: float, steps: int) -> torch.Tensor:
    sampler = DDS(steps=steps, sigma_max=300, sigma_min=1e-3, iterations=60)
    measurement = Measurement(operator, data, noise).repeated(SAMPLES)
    accumulator = KlipAccumulator([ScoreTerm()], sampler.levels, 1, SAMPLES)
    items = ItemNoise(0, [(0, s) for s in range(SAMPLES)], (1, *SHAPE), "cpu")
    for step in sampler(GaussianPrior(), measurement, items):
        accumulator.add(step)
    return accumulator.density()[0, 0]


def closed_form(operator: LinearOperator, data: torch.Tensor, noise: float) -> float:
    n = SHAPE[0] * SHAPE[1]
    a = operator.forward(torch.eye(n).view(n, 1, *SHAPE)).flatten(1).T.double()
    covariance = torch.linalg.inv(a.T @ a / noise + torch.eye(n) / VARIANCE)
    shift = covariance @ (a.T @ data.flatten().double() / noise + MEAN / VARIANCE) - MEAN
    logs = n * math.log(VARIANCE) - torch.linalg.slogdet(covariance).logabsdet
    return float(0.5 * (covariance.trace() / VARIANCE + shift @ shift / VARIANCE - n + logs))


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    truth = torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(3))
    print("| operator | noise levels | closed form | KLIP | error | blocks - whole |\n|---|---|---|---|---|---|")
    for name, noise, options in (("identity", 0.09, {}), ("parallel", 4.0, {"views": 4})):
        operator = build_operator(name, SHAPE, 3.0, **options)
        data = operator.forward(truth)
        expected = closed_form(operator, data, noise)
        for steps in (50, 100, 400):
            density = klip(operator, data, noise, steps)
            total, split = float(density.sum()), float(tile_sums(density, 4).sum())
            error = abs(total - expected) / expected
            print(
                f"| {name} | {steps} | {expected:.2f} | {total:.2f} | {100 * error:.2f} % | {split - total:.1e} |"
            )


if __name__ == "__main__":
    main()
