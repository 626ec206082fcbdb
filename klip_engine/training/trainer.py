"""Training of a prior: resumable, on CPU, CUDA or torchrun; what is learned is in `training.objectives`."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from klip_engine.errors import Cancelled, InputError, KlipError, UsageError
from klip_engine.priors.base import Denoiser, NetworkDenoiser
from klip_engine.settings import plain_data
from klip_engine.training.augmentation import NO_AUGMENTATION, augment
from klip_engine.training.dataset import SliceSet
from klip_engine.training.objectives import Batch, build_objective
from klip_engine.training.optimisers import Optimiser
from klip_engine.training.training_settings import TrainingSettings
from klip_engine.working_grid import WorkingGrid

CHECKPOINT = "checkpoint.pt"
VALIDATION_SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


@dataclass(frozen=True)
class TrainingReport:
    """What the callback hears: images seen, share of the run done, smoothed loss, and at checkpoints the
    normalised denoising error on the validation slices for each noise level (1 = the best constant gain)."""

    images: int
    steps: int
    fraction: float
    loss: float
    images_per_second: float
    at_checkpoint: bool
    validation: dict[str, float] | None = None


def train(
    data: SliceSet,
    grid: WorkingGrid,
    folder: Path,
    settings: TrainingSettings,
    *,
    validation: SliceSet | None = None,
    start: Denoiser | None = None,
    resume: bool = False,
    report: Callable[[TrainingReport, NetworkDenoiser], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> NetworkDenoiser:
    """Train a prior and return its exponential moving average; `folder` holds the checkpoint.

    start: a trained prior whose weights a new run begins with; by default they are drawn.

    Under torchrun every rank sees its own random slices and gradients are averaged; rank 0 reports and saves.
    When cancelled() turns true a checkpoint is saved first.
    Raises UsageError when a run is there and `resume` is not asked for, and for a `start` of another family,
    network or grid, InputError when the run was of another network or grid, KlipError when the loss is no longer
    finite, Cancelled when it was stopped.
    """
    rank, world = _join_process_group(settings.device)
    run = _Run(data, grid, settings, rank, start)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        if not resume:
            raise UsageError(f"{checkpoint} exists: resume it or choose another folder")
        run.load(checkpoint)
    model: Any = DistributedDataParallel(run.training_step) if world > 1 else run.training_step
    saved_at, reported = run.elapsed, False
    for batch in run.batches():
        loss = model(*batch)
        run.update(loss, world)
        stop = _any_rank(cancelled(), world, run.device)
        due = stop or run.elapsed - saved_at >= settings.checkpoint_minutes * 60 or run.fraction >= 1
        if rank == 0 and (due or run.steps % 10 == 0):
            scores = _validate(run.ema, validation) if due and validation is not None else None
            if due:
                run.save(checkpoint)
                saved_at = run.elapsed
            if report:
                report(run.report(due, scores), run.ema)
                reported |= due
        if stop and run.fraction < 1:
            raise Cancelled(f"training stopped; continue it with --resume (checkpoint in {folder})")
    if rank == 0 and report and not reported:  # a finished run was resumed: nothing was left to train
        report(run.report(True, _validate(run.ema, validation) if validation is not None else None), run.ema)
    return run.ema.eval()


class _Run:
    """State of one training run: the network, its average, the optimiser, the counters."""

    def __init__(
        self,
        data: SliceSet,
        grid: WorkingGrid,
        settings: TrainingSettings,
        rank: int,
        start: Denoiser | None = None,
    ) -> None:
        self.data, self.grid, self.settings, self.rank = data, grid, settings, rank
        self.device = torch.device(settings.device)
        torch.manual_seed(settings.seed)  # the initial weights; everything random later has its own generator
        self.denoiser = settings.fresh_denoiser(grid.shape).to(self.device)
        if start is not None:
            _begin_with(start, self.denoiser)
        self.ema = copy.deepcopy(self.denoiser).requires_grad_(False)
        self.training_step = build_objective(self.denoiser, settings.objective)
        self.optimiser = Optimiser(settings.optimiser, self.denoiser, settings.learning_rate, settings.weight_decay)
        self.generator = torch.Generator().manual_seed(settings.seed * 1000 + rank)
        self.images, self.steps, self.elapsed, self.loss = 0, 0, 0.0, math.nan
        self._tick = time.perf_counter()
        self._speed = 0.0

    @property
    def fraction(self) -> float:
        """Share of the run that is done, by the clock or by the images."""
        if self.settings.minutes is not None:
            return min(1.0, self.elapsed / (60 * self.settings.minutes))
        return min(1.0, self.images / max(1, self.settings.images or 1))

    def batches(self) -> Iterator[Batch]:
        """What the objective makes of random augmented slices, until the run is done."""
        settings = self.settings
        self._tick = time.perf_counter()
        while self.fraction < 1:
            pick = torch.randint(len(self.data), (settings.batch_size,), generator=self.generator)
            clean = augment(
                self.data.hu[pick].to(self.device, torch.float32),
                self.data.body[pick].to(self.device),
                self.data.grid.pixel_mm,
                self.data.hu.shape[-1] // self.grid.shape[1],
                settings.augmentation,
                self.generator,
            )
            yield self.training_step.batch(clean, self.generator)

    def update(self, loss: torch.Tensor, world: int) -> None:
        """One optimiser step, the moving average and the counters."""
        warm_up = min(1.0, (self.steps + 1) / self.settings.warm_up_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * self.fraction))
        self.denoiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
        self.optimiser.step(self.settings.learning_rate * warm_up * (0.01 + 0.99 * cosine))
        count = self.settings.batch_size * world
        self.images += count
        self.steps += 1
        self._average(count)
        self._count_time(count, world)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise KlipError("the training diverged: the loss is not finite; resume with a lower learning rate")
        self.loss = value if math.isnan(self.loss) else 0.99 * self.loss + 0.01 * value

    def _average(self, count: int) -> None:
        half_life = min(self.settings.ema_half_life_images, max(1.0, 0.1 * self.images))
        decay = 0.5 ** (count / half_life)
        with torch.no_grad():
            for average, current in zip(self.ema.parameters(), self.denoiser.parameters(), strict=True):
                average.lerp_(current, 1 - decay)

    def _count_time(self, count: int, world: int) -> None:
        now = time.perf_counter()
        spent = now - self._tick
        if world > 1:  # every rank must see the same clock, or one would stop while the others wait for it
            shared = torch.tensor([spent], device=self.device)
            distributed.broadcast(shared, src=0)
            spent = float(shared)
        self.elapsed += spent
        self._tick = now
        self._speed = 0.9 * self._speed + 0.1 * count / max(spent, 1e-9)

    def report(self, at_checkpoint: bool, validation: dict[str, float] | None) -> TrainingReport:
        """The state for the caller."""
        return TrainingReport(
            self.images, self.steps, self.fraction, self.loss, self._speed, at_checkpoint, validation
        )

    def save(self, path: Path) -> None:
        """Write the whole state; the old checkpoint stays until the new one is complete."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "network": self.denoiser.state_dict(),
            "average": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "counters": [self.images, self.steps, self.elapsed, self.loss],
            "task": self._task(),
        }
        temporary = path.with_suffix(".partial")
        torch.save(state, temporary)
        os.replace(temporary, path)

    def _task(self) -> dict[str, Any]:
        """What a run must keep when it is resumed."""
        family = {} if self.settings.family == "edm" else {"family": self.settings.family}
        patch = {"patch": self.settings.patch} if self.settings.family == "patch-edm" else {}
        return {
            "network": plain_data(asdict(self.settings.network)),
            "shape": list(self.grid.shape),
            "pixel_mm": self.grid.pixel_mm,
            **family,
            **patch,
        }

    def load(self, path: Path) -> None:
        """Continue from a checkpoint; never unpickles code. Every rank but the first goes on with random numbers
        of its own, or all would see the same slices."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if state["task"] != self._task():
                raise ValueError("another family, network or grid")
            self.denoiser.load_state_dict(state["network"])
            self.ema.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.images, self.steps, self.elapsed, self.loss = state["counters"]
            if self.rank == 0:
                self.generator.set_state(state["generator"])
            else:
                self.generator.manual_seed(self.settings.seed * 1000 + self.rank + 1_000_000 * self.steps)
        except Exception as error:
            raise InputError(
                f"{path} is not a checkpoint of this family, network, grid and optimiser; "
                "name what it was made with"
            ) from error


def _begin_with(start: Denoiser, denoiser: NetworkDenoiser) -> None:
    if (
        not isinstance(start, NetworkDenoiser)
        or type(start) is not type(denoiser)
        or plain_data(start.config()) != plain_data(denoiser.config())
    ):
        raise UsageError(
            "the prior to start from has another family, network or grid than the one to be trained: "
            "give them the same"
        )
    denoiser.network.load_state_dict(start.network.state_dict())


def _validate(denoiser: NetworkDenoiser, data: SliceSet, limit: int = 48) -> dict[str, float]:
    """Mean squared error per noise level on evenly chosen slices, in units of the best constant gain's for data of
    the prior's variance: fixed noise, no augmentation."""
    pick = torch.linspace(0, len(data) - 1, min(limit, len(data))).round().long()
    device = next(denoiser.parameters()).device
    factor = data.hu.shape[-1] // denoiser.image_shape[1]
    generator = torch.Generator().manual_seed(0)
    hu, body = data.hu[pick].float(), data.body[pick]
    clean = augment(hu, body, data.grid.pixel_mm, factor, NO_AUGMENTATION, generator).to(device)
    scores = {}
    with torch.no_grad():
        for level in VALIDATION_SIGMAS:
            noise = torch.randn(clean.shape, generator=generator).to(device)
            sigma = torch.full((len(clean),), level, device=device)
            mean = torch.cat(
                [
                    denoiser(x + level * n, s).mean
                    for x, n, s in zip(clean.split(8), noise.split(8), sigma.split(8), strict=True)
                ]
            )
            constant_gain = denoiser.data_variance * level**2 / (denoiser.data_variance + level**2)
            scores[f"{level:g}"] = float(((mean - clean) ** 2).mean()) / constant_gain
    return scores


def is_main_process() -> bool:
    """False in the helping processes of torchrun."""
    return int(os.environ.get("RANK", "0")) == 0


def process_count() -> int:
    """How many processes of torchrun share the training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _any_rank(flag: bool, world: int, device: torch.device) -> bool:
    """True on every rank as soon as it is true on one: they must stop together."""
    if world == 1:
        return flag
    shared = torch.tensor([float(flag)], device=device)
    distributed.all_reduce(shared, op=distributed.ReduceOp.MAX)
    return bool(shared.item())


def _join_process_group(device: str) -> tuple[int, int]:
    """(rank, world size); joins torchrun's group when there is one."""
    world = process_count()
    if world > 1 and device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return int(os.environ.get("RANK", "0")), world
