"""Slices through measurement, posterior sampling and KLIP accumulation, in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from klip_engine.errors import Cancelled, UsageError
from klip_engine.measurement import Scanner, SimulatedScanner, build_scanner
from klip_engine.priors import Denoiser, PatchTiled, PriorBundle, PriorMean
from klip_engine.samplers import ItemNoise, Sampler, Step
from klip_engine.scoring.klip import KlipAccumulator, ScoreTerm
from klip_engine.scoring.score_map import (
    PlaceArray,
    Scales,
    block_maps,
    combine_blocks,
    local_places,
    terms_over_neighbours,
)
from klip_engine.settings import DetectionSettings, ScoreSettings
from klip_engine.stacks import StackArray
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
    """A denoiser that counts what it is asked: evaluations (one image, one noise level) and seconds.

    A sampler's backward passes through the network are not among the seconds.
    """

    denoiser: Denoiser
    watch: Watch = field(default_factory=Watch)
    evaluations: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.channels, self.image_shape = self.denoiser.channels, self.denoiser.image_shape
        self.sigma_min, self.sigma_max = self.denoiser.sigma_min, self.denoiser.sigma_max
        self.data_variance = self.denoiser.data_variance
        if isinstance(self.denoiser, PatchTiled):  # only then is the meter itself a `PatchTiled`
            self.patch, self.at_offset = self.denoiser.patch, self._at_offset

    def denoise(self, x: torch.Tensor, sigma: float) -> PriorMean:
        """The denoiser's own answer, after asking whether to stop."""
        return self.ask(self.denoiser, x, sigma)

    def ask(self, denoiser: Denoiser, x: torch.Tensor, sigma: float) -> PriorMean:
        """The same of a variant of the denoiser, counted here."""
        self.watch.check()
        _synchronise(x)
        start = time.perf_counter()
        result = denoiser.denoise(x, sigma)
        _synchronise(x)
        self.seconds += time.perf_counter() - start
        self.evaluations += len(x)
        return result

    def _at_offset(self, offset: tuple[int, int]) -> Denoiser:
        assert isinstance(self.denoiser, PatchTiled)
        return _MeteredVariant(self.denoiser.at_offset(offset), self)


class _MeteredVariant:
    """A variant of a metered denoiser (a patch grid of its own), on the same meter."""

    def __init__(self, denoiser: Denoiser, meter: NetworkMeter) -> None:
        self.channels, self.image_shape = denoiser.channels, denoiser.image_shape
        self.sigma_min, self.sigma_max = denoiser.sigma_min, denoiser.sigma_max
        self.data_variance = denoiser.data_variance
        self._denoiser, self._meter = denoiser, meter

    def denoise(self, x: torch.Tensor, sigma: float) -> PriorMean:
        return self._meter.ask(self._denoiser, x, sigma)


class StepObserver(Protocol):
    """Sees every step of the sampler beside the score, batch after batch."""

    def observe(self, step: Step) -> None:
        """The next noise level of the batch under way."""

    def finish(self, numbers: Sequence[int], samples: int) -> None:
        """The batch is done; it held `samples` samples of each slice with these numbers, slice by slice."""


@dataclass(frozen=True)
class ScoredSlices:
    """density: KLIP per pixel and term [n, terms, h, w]; reconstruction: posterior mean [n, channels, h, w], values
    in [-1, 1] (CT: HU / 1000); both on the CPU."""

    density: torch.Tensor
    reconstruction: torch.Tensor


def scanner_and_sampler(prior: PriorBundle, settings: DetectionSettings) -> tuple[SimulatedScanner, Sampler]:
    """What the settings describe; raises UsageError where they do not fit (cheap: worth asking early)."""
    scanner = build_scanner(
        settings.operator, prior.denoiser.image_shape, prior.pixel_size, settings.seed, prior.denoiser.channels
    )
    return scanner, settings.sampling.build(predicted_variance=not settings.operator.sees_images)


@torch.no_grad()
def check_variance(prior: PriorBundle, scores: Sequence[ScoreSettings], device: str) -> None:
    """Raise UsageError when a score weighs by a variance that the prior does not predict: asks it once."""
    weighing = [one.name for one in scores if not all(term.weighting.startswith("plain") for term in one.terms)]
    if not weighing:
        return
    denoiser = prior.denoiser
    nothing = torch.zeros(1, denoiser.channels, *denoiser.image_shape, device=device)
    if denoiser.denoise(nothing, min(max(1.0, denoiser.sigma_min), denoiser.sigma_max)).log_variance is None:
        raise UsageError(
            f"the score '{weighing[0]}' needs a prior that predicts its variance, and '{prior.name}' does not: "
            "use --score klip or --score kl"
        )


def score_images(
    images: FloatArray,
    prior: PriorBundle,
    settings: DetectionSettings,
    device: str,
    meter: NetworkMeter,
    stage: str | None,
    scores: Sequence[ScoreSettings] | None = None,
    numbers: Sequence[int] | None = None,
    observer: StepObserver | None = None,
    scanner: Scanner | None = None,
) -> ScoredSlices:
    """Measure, reconstruct and score images [n, channels, h, w] of the prior's size as the settings say.

    scores: several at once instead of the settings' own; their terms follow one another. scanner: that has measured
    these slices, instead of a simulated one. stage, numbers: as for `score_slices`.
    """
    simulated, sampler = scanner_and_sampler(prior, settings)
    return score_slices(
        torch.from_numpy(images),
        scanner or simulated,
        meter,
        sampler,
        [term for score in scores or [settings.score] for term in score.terms],
        samples=settings.sampling.samples,
        seed=settings.seed,
        antithetic=settings.sampling.antithetic,
        numbers=numbers,
        batch_slices=settings.batch_slices,
        device=device,
        stage=stage,
        observer=observer,
    )


def score_map(
    density: torch.Tensor,
    reconstruction: torch.Tensor,
    score: ScoreSettings,
    prior: PriorBundle,
    scales: Scales,
    stacks: StackArray | None = None,
) -> FloatArray:
    """The score map [n, h, w] from the densities [n, terms, h, w] of one score's terms and the reconstruction
    [n, channels, h, w], in units of a null distribution's scales.

    stacks: which slices are neighbours, [n]. Raises ValueError when a score that asks for them is not told.
    """
    if score.neighbours:
        if stacks is None:
            raise ValueError(f"the score '{score.name}' needs to know which slices are neighbours")
        density = terms_over_neighbours(density, score.terms, stacks)
    maps = block_maps(density, score.blocks(prior.pixel_size))
    return combine_blocks(maps, scales, places(reconstruction, score, prior)).astype(np.float32)


def places(reconstruction: torch.Tensor, score: ScoreSettings, prior: PriorBundle) -> PlaceArray | None:
    """The kinds of tissue the score tells apart, uint8 [n, h, w]; None where it tells none apart, or no tissue is
    shown."""
    if not score.place_edges_hu or prior.grid is None:
        return None
    return local_places(
        1000 * reconstruction[:, 0].numpy(), score.place_edges_hu, score.place_mm / prior.pixel_size
    )


@torch.no_grad()
def score_slices(
    images: torch.Tensor,
    scanner: Scanner,
    meter: NetworkMeter,
    sampler: Sampler,
    terms: Sequence[ScoreTerm],
    *,
    samples: int,
    seed: int,
    antithetic: bool = False,
    numbers: Sequence[int] | None = None,
    batch_slices: int,
    device: str,
    stage: str | None = "reconstructing",
    observer: StepObserver | None = None,
) -> ScoredSlices:
    """Measure, reconstruct and score images [n, channels, h, w] with values in [-1, 1] (CT: HU / 1000).

    A slice's random numbers depend on the seed and its number alone; numbers: by default the places in `images`.
    stage: under which progress is told, None for silence. Memory beyond the result is that of one batch, whatever
    the number of steps and samples.
    """
    count, *image_shape = images.shape
    density = torch.empty(count, len(terms), *image_shape[1:])
    reconstruction = torch.empty(images.shape)
    levels = sampler.levels
    numbers = range(count) if numbers is None else numbers
    total = count * samples * len(levels)
    done = 0
    for first in range(0, count, batch_slices):
        places = slice(first, min(first + batch_slices, count))
        batch = images[places].to(device)
        batch_numbers = numbers[places]
        measured = scanner.measure(batch, batch_numbers).repeated(samples)
        items = [(n, s) for n in batch_numbers for s in range(samples)]
        noise = ItemNoise(seed, items, tuple(image_shape), device, antithetic)
        accumulator = KlipAccumulator(terms, levels, len(batch), samples)
        for step in sampler(meter, measured, noise):
            accumulator.add(step)
            if observer is not None:
                observer.observe(step)
            done += len(noise)
            if stage is not None:
                meter.watch.tell(stage, done, total)
        density[places] = accumulator.density().cpu()
        sample_mean = step.posterior_mean.view(len(batch), samples, *image_shape).mean(dim=1)
        reconstruction[places] = sample_mean.cpu()
        if observer is not None:
            observer.finish(batch_numbers, samples)
    return ScoredSlices(density, reconstruction)


def _synchronise(x: torch.Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
