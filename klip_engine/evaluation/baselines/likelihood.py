"""Negative log likelihood under the prior, by the probability-flow ODE.

Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021, equation 39
(instantaneous change of variables) with the Skilling-Hutchinson estimate of the divergence, equation 40; the ODE
in noise level and Heun's steps are those of Karras et al., NeurIPS 2022 (EDM), equation 3 and algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from klip_engine.evaluation.baselines.base import Evidence, Scores
from klip_engine.priors import Denoiser
from klip_engine.samplers import ItemNoise, noise_levels

_PROBE = 20_039
"""Number of the sample whose noise gives the probes: none that a posterior sampler uses."""


@dataclass(frozen=True)
class Likelihood:
    """-log p(x) of the reconstruction; a slice's score is in bits per pixel, over the whole image.

    The map is an extension of ours: the same sum pixel by pixel (`negative_log_density`), in nats. steps: noise
    levels, evenly spaced in log sigma from `sigma_min`, where the density is taken, to 160 standard deviations
    of the data (EDM's 80 for 0.5), where the mean of the data, which the latent's density leaves out, is nothing.
    For a Gaussian prior, 20 levels give the quadratic part of -log p to 5 %, 40 to 2 %: the error scales all slices
    alike.
    """

    steps: int = 20
    sigma_min: float = 0.006

    name = "prior NLL"
    source = "Song et al., ICLR 2021, equations 39 and 40"

    @property
    def evaluations(self) -> int:
        """Network evaluations per slice, each with a backward pass: two per step of Heun's method."""
        return 2 * (self.steps - 1)

    def fitted(self, denoiser: Denoiser, healthy: Evidence, seed: int) -> Likelihood:
        """Itself: the prior is all it knows."""
        return self

    def score(self, denoiser: Denoiser, evidence: Evidence, seed: int) -> Scores:
        """See `Baseline`."""
        images = evidence.reconstruction
        items = [(number, _PROBE) for number in evidence.numbers]
        noise = ItemNoise(seed, items, tuple(images.shape[1:]), str(images.device))
        nats = negative_log_density(denoiser, images, self.levels(denoiser), noise)
        return Scores(nats, nats.mean(dim=(1, 2)) / math.log(2))

    def levels(self, denoiser: Denoiser) -> list[float]:
        """The noise levels of the ODE, from low to high, inside the prior's range."""
        highest = min(denoiser.sigma_max, 160 * math.sqrt(denoiser.data_variance))
        return noise_levels(self.steps, highest, max(self.sigma_min, denoiser.sigma_min))[::-1]


def negative_log_density(
    denoiser: Denoiser, images: torch.Tensor, levels: Sequence[float], noise: ItemNoise
) -> torch.Tensor:
    """-log p at the lowest level of images [n, 1, h, w], shared out among the pixels: [n, h, w] in nats.

    Following dx / d(log sigma) = x - D(x; sigma) up to the highest level,

        -log p(x) = -log N(x_T; 0, sigma_T^2 + v) - integral (h w - tr dD/dx) d(log sigma),

    v being the data's variance. A pixel gets its own terms of both sums: the Gaussian's at that pixel, and
    u_i (u^T dD/dx)_i with a Rademacher probe u, new for every step, whose expectation is the diagonal of dD/dx.
    """
    with torch.inference_mode(False):
        x = images.detach().clone()
        growth = torch.zeros_like(x)
        for sigma, sigma_next in pairwise(levels):
            probe = torch.where(noise.draw() >= 0, 1.0, -1.0).to(x.dtype)
            slope, divergence = _flow(denoiser, x, sigma, probe)
            slope_ahead, divergence_ahead = _flow(denoiser, x + (sigma_next - sigma) * slope, sigma_next, probe)
            x = x + (sigma_next - sigma) * (slope + slope_ahead) / 2
            growth = growth + math.log(sigma_next / sigma) * (divergence + divergence_ahead) / 2
        variance = levels[-1] ** 2 + denoiser.data_variance
        latent = 0.5 * (x.square() / variance + math.log(2 * math.pi * variance))
        return (latent - growth)[:, 0]


def _flow(
    denoiser: Denoiser, x: torch.Tensor, sigma: float, probe: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """dx / dsigma, and the estimated diagonal of the Jacobian of dx / d(log sigma), both [n, 1, h, w]."""
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        mean = denoiser.denoise(x, sigma).mean
        (product,) = torch.autograd.grad((mean * probe).sum(), x)
    return ((x - mean) / sigma).detach(), 1 - probe * product
