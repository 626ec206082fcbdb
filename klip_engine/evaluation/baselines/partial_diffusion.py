"""Reconstruct and compare: re-noise the slice part of the way, restore it with the prior, look at what changed.

Graham et al., "Denoising diffusion models for out-of-distribution detection", CVPR workshops 2023: several
starting levels, each error in z-scores of a healthy validation set, averaged. Their second error, LPIPS, needs
pretrained weights of a network for natural images, which this project does not have; here the error is squared
difference alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from klip_engine.errors import UsageError
from klip_engine.evaluation.baselines.base import Evidence, Scores
from klip_engine.priors import Denoiser
from klip_engine.samplers import ItemNoise, ancestral_step, noise_levels

_RENOISING = 20_023
"""Number of the sample whose noise is added: none that a posterior sampler uses."""
_BATCH = 8


@dataclass(frozen=True)
class PartialDiffusion:
    """Squared change by partial diffusion in z-scores, averaged over the starting levels.

    starts: noise levels (unit of the image) from which the slice is restored, each in `steps` DDIM steps down to
    `sigma_min`. A slice's z-scores are of its mean squared change over the image, as published; a pixel's of its
    own squared change, among the body's pixels of healthy slices.
    """

    starts: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8, 1.6)
    steps: int = 5
    sigma_min: float = 0.02
    of_slices: ZScores | None = None
    of_pixels: ZScores | None = None

    name = "partial diffusion"
    source = "Graham et al., CVPR workshops 2023"

    @property
    def evaluations(self) -> int:
        """Network evaluations per slice."""
        return len(self.starts) * self.steps

    def fitted(self, denoiser: Denoiser, healthy: Evidence, seed: int) -> PartialDiffusion:
        """With the z-scores of the healthy slices."""
        slices, pixels = [], []
        for batch in healthy.batches(_BATCH):
            change = self.squared_change(denoiser, batch, seed)
            slices.append(change.mean(dim=(2, 3)))
            pixels.append(change.movedim(1, -1)[batch.body])
        return replace(self, of_slices=_z_scores(torch.cat(slices)), of_pixels=_z_scores(torch.cat(pixels)))

    def score(self, denoiser: Denoiser, evidence: Evidence, seed: int) -> Scores:
        """See `Baseline`. Raises UsageError before `fitted`."""
        if self.of_slices is None or self.of_pixels is None:
            raise UsageError("partial diffusion scores slices only after it was fitted to healthy ones")
        change = self.squared_change(denoiser, evidence, seed)
        return Scores(
            self.of_pixels.mean_of(change.movedim(1, -1)), self.of_slices.mean_of(change.mean(dim=(2, 3)))
        )

    def squared_change(self, denoiser: Denoiser, evidence: Evidence, seed: int) -> torch.Tensor:
        """(restored - reconstruction)^2 for every starting level, [n, levels, h, w]."""
        images = evidence.reconstruction
        items = [(number, _RENOISING) for number in evidence.numbers]
        noise = ItemNoise(seed, items, tuple(images.shape[1:]), str(images.device))
        restored = [restore(denoiser, images, self._levels(start), noise.draw()) for start in self.starts]
        return (torch.cat(restored, dim=1) - images).square()

    def _levels(self, start: float) -> list[float]:
        return noise_levels(self.steps, start, min(self.sigma_min, start))


def restore(denoiser: Denoiser, images: torch.Tensor, levels: list[float], noise: torch.Tensor) -> torch.Tensor:
    """Images [n, 1, h, w] with noise of the first level, denoised along DDIM through `levels` (from high to low),
    clipped to the prior's range [-1, 1]."""
    with torch.no_grad():
        x = images + levels[0] * noise
        for sigma, sigma_next in zip(levels, [*levels[1:], 0.0], strict=True):
            x = ancestral_step(x, denoiser.denoise(x, sigma).mean, sigma, sigma_next, noise, stochasticity=0.0)
    return x.clamp(-1, 1)


@dataclass(frozen=True)
class ZScores:
    """Mean and standard deviation of the error on healthy slices, [levels] each."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def mean_of(self, errors: torch.Tensor) -> torch.Tensor:
        """The mean over levels of the z-scores of errors [..., levels]: [...]."""
        return ((errors - self.mean) / self.deviation).mean(dim=-1)


def _z_scores(errors: torch.Tensor) -> ZScores:
    return ZScores(errors.mean(dim=0), errors.std(dim=0).clamp(min=1e-12))
