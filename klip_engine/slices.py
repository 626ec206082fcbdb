"""Slices through measurement, posterior sampling and KLIP accumulation, in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from klip_engine.errors import Cancelled
from klip_engine.measurement import SimulatedScanner, build_scanner
from klip_engine.priors import Denoiser, PriorBundle, PriorMean
from klip_engine.samplers import ItemNoise, Sampler, build_sampler
from klip_engine.scoring.klip import KlipAccumulator, ScoreTerm
from klip_engine.settings import DetectionSettings, ScoreSettings
from klip_engine.volume import FloatArray


@dataclass
class Watch:
    """What the caller sees of a running job: progress out, cancellation in.

    progress(stage, done, total) is called after every network evaluation of a batch; `cancelled` is asked
    before each.
    """

    progress: Callable[[str, int, int], None] | None = None
    cancelled: Callable[[], bool] | None = None

    def check(self) -> None:
        """Raise Cancelled when the caller wants to stop."""
        if self.cancelled is not None and self.cancelled():
            raise Cancelled("stopped on request; nothing was written")

    def tell(self, stage: str, done: int, total: int) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(stage, done, total)


@dataclass
class NetworkMeter:
    """A denoiser that counts what it is asked: evaluations (one image, one noise level) and seconds."""

    denoiser: Denoiser
    watch: Watch = field(default_factory=Watch)
    evaluations: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.channels, self.image_shape = self.denoiser.channels, self.denoiser.image_shape
        self.sigma_min, self.sigma_max = self.denoiser.sigma_min, self.denoiser.sigma_max
        self.data_variance = self.denoiser.data_variance

    def denoise(self, x: torch.Tensor, sigma: float) -> PriorMean:
        """The denoiser's own answer, after asking whether to stop."""
        self.watch.check()
        _synchronise(x)
        start = time.perf_counter()
        result = self.denoiser.denoise(x, sigma)
        _synchronise(x)
        self.seconds += time.perf_counter() - start
        self.evaluations += len(x)
        return result


@dataclass(frozen=True)
class ScoredSlices:
    """density: KLIP per pixel and term [n, terms, h, w]; reconstruction: posterior mean [n, h, w], HU / 1000;
    both on the CPU."""

    density: torch.Tensor
    reconstruction: torch.Tensor


def scanner_and_sampler(prior: PriorBundle, settings: DetectionSettings) -> tuple[SimulatedScanner, Sampler]:
    """What the settings describe; raises UsageError where they do not fit (cheap: worth asking early)."""
    sampling = settings.sampling
    predicted = sampling.predicted_variance
    return build_scanner(settings.operator, prior.ct_grid, settings.seed), build_sampler(
        sampling.sampler,
        sampling.options,
        steps=sampling.steps,
        sigma_max=sampling.sigma_max,
        sigma_min=sampling.sigma_min,
        predicted_variance=not settings.operator.sees_images if predicted is None else predicted,
    )


def score_hu(
    hu: FloatArray,
    prior: PriorBundle,
    settings: DetectionSettings,
    device: str,
    meter: NetworkMeter,
    stage: str,
    scores: Sequence[ScoreSettings] | None = None,
) -> ScoredSlices:
    """Measure, reconstruct and score slices hu [n, h, w] on the prior's grid as the settings say.

    scores: several at once instead of the settings' own; their terms follow one another.
    """
    scanner, sampler = scanner_and_sampler(prior, settings)
    return score_slices(
        torch.from_numpy((hu / 1000).clip(-1, 1).astype(np.float32, copy=False))[:, None],
        scanner,
        meter,
        sampler,
        [term for score in scores or [settings.score] for term in score.terms],
        samples=settings.sampling.samples,
        seed=settings.seed,
        antithetic=settings.sampling.antithetic,
        batch_slices=settings.batch_slices,
        device=device,
        stage=stage,
    )


@torch.no_grad()
def score_slices(
    images: torch.Tensor,
    scanner: SimulatedScanner,
    meter: NetworkMeter,
    sampler: Sampler,
    terms: Sequence[ScoreTerm],
    *,
    samples: int,
    seed: int,
    antithetic: bool = False,
    first_number: int = 0,
    batch_slices: int,
    device: str,
    stage: str = "reconstructing",
) -> ScoredSlices:
    """Measure, reconstruct and score images [n, 1, h, w], x = HU / 1000.

    A slice's random numbers depend on the seed and its number alone: its place in `images`, counted from
    `first_number`. Memory beyond the result is
    that of one batch, whatever the number of steps and samples.
    """
    count, _, height, width = images.shape
    density = torch.empty(count, len(terms), height, width)
    reconstruction = torch.empty(count, height, width)
    levels = sampler.levels
    total = count * samples * len(levels)
    done = 0
    for first in range(0, count, batch_slices):
        places = slice(first, min(first + batch_slices, count))
        batch = images[places].to(device)
        numbers = range(first_number + first, first_number + first + len(batch))
        measured = scanner.measure(batch, numbers).repeated(samples)
        items = [(n, s) for n in numbers for s in range(samples)]
        noise = ItemNoise(seed, items, (1, height, width), device, antithetic)
        accumulator = KlipAccumulator(terms, levels, len(numbers), samples)
        for step in sampler(meter, measured, noise):
            accumulator.add(step)
            done += len(noise)
            meter.watch.tell(stage, done, total)
        density[places] = accumulator.density().cpu()
        sample_mean = step.posterior_mean.view(len(numbers), samples, height, width).mean(dim=1)
        reconstruction[places] = sample_mean.cpu()
    return ScoredSlices(density, reconstruction)


def _synchronise(x: torch.Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
