"""One training job from files to bundle: what `klip-engine train` does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klip_engine.errors import UsageError
from klip_engine.files import write_file
from klip_engine.io.sources import find_sources
from klip_engine.priors import PriorBundle, load_prior, save_bundle
from klip_engine.priors.base import NetworkDenoiser
from klip_engine.training.dataset import load_slices
from klip_engine.training.model_card import STARTED_FROM, model_card, model_cards, training_facts
from klip_engine.training.pictures import TrainingDiary, require_matplotlib
from klip_engine.training.trainer import CHECKPOINT, TrainingReport, is_main_process, train
from klip_engine.training.training_settings import TrainingSettings
from klip_engine.working_grid import WorkingGrid


@dataclass(frozen=True)
class TrainingJob:
    """Data in, bundle out; `note` is Markdown for the model card (attributions of the data), `start` the prior to
    begin with."""

    data: tuple[Path, ...]
    bundle: Path
    grid: WorkingGrid
    settings: TrainingSettings
    validation: tuple[Path, ...] = ()
    exclude: tuple[str, ...] = ()
    resume: bool = False
    note: str = ""
    start: str | None = None

    def __post_init__(self) -> None:
        step = self.settings.network.step
        if self.settings.family != "patch-edm" and any(length % step for length in self.grid.shape):
            raise UsageError(f"the sides of the working grid must be multiples of {step}, not {self.grid.shape}")
        if not self.resume and (self.bundle / "configs" / "metadata.json").exists():
            raise UsageError(f"{self.bundle} holds a prior already; name another folder")


def run_training(
    job: TrainingJob,
    progress: Callable[[str, int, int], None],
    cancelled: Callable[[], bool],
) -> dict[str, Any] | None:
    """Train and write the bundle; returns the training facts, or None in a helping process of torchrun.

    Raises Cancelled after saving a checkpoint when the caller stops it, UsageError for what does not fit together.
    """
    require_matplotlib()
    main = is_main_process()
    start = None if job.start is None else _start(job.start, job.grid)
    sources = find_sources(job.data, job.exclude)
    others = find_sources(job.validation) if job.validation else []
    common = {source.patient for source in sources} & {source.patient for source in others}
    if common:
        raise UsageError(f"patients in both training and validation: {', '.join(sorted(common))}")

    def reading(done: int, total: int) -> None:
        progress("reading", done, total)

    data = load_slices(sources, job.grid, progress=reading)
    validation = load_slices(others, job.grid, progress=reading) if others else None
    folder = job.bundle / "training"
    if main:
        _note_start(folder, start, job.resume)
    diary = TrainingDiary(folder) if main else None
    last: list[TrainingReport] = []

    def report(now: TrainingReport, denoiser: NetworkDenoiser) -> None:
        last[:] = [now]
        progress(*_how_far(now, job.settings))
        assert diary is not None  # only the main process reports
        if now.at_checkpoint or now.steps % 100 == 0:
            diary.write(now)
        if now.at_checkpoint:
            diary.draw(denoiser, job.settings.device)

    denoiser = train(
        data,
        job.grid,
        folder,
        job.settings,
        validation=validation,
        start=None if start is None else start.denoiser,
        resume=job.resume,
        report=report,
        cancelled=cancelled,
    )
    if not main:
        return None
    facts = training_facts(data, validation, job.settings, last[0] if last else None, list(job.exclude), start)
    save_bundle(
        job.bundle,
        denoiser,
        job.grid,
        training=facts,
        model_card=model_card(job.bundle.name, denoiser, job.grid, data, facts, job.note),
        description=f"Diffusion prior ({denoiser.family}) of healthy axial CT slices for KLIP anomaly detection",
    )
    if start is not None:
        write_file(job.bundle / "docs" / STARTED_FROM, model_cards(start).encode())
    return facts


def _how_far(now: TrainingReport, settings: TrainingSettings) -> tuple[str, int, int]:
    """Stage, done and total, counted in what sets the length of the run."""
    if settings.images is not None:
        return "training (images)", min(now.images, settings.images), settings.images
    seconds = max(1, round(60 * (settings.minutes or 0)))
    return "training (seconds)", round(now.fraction * seconds), seconds


def _note_start(folder: Path, start: PriorBundle | None, resume: bool) -> None:
    """Keep what a new run starts from; raises UsageError when a run is resumed with another start than it had."""
    path = folder / "start.json"
    now = None if start is None else start.identity()
    begun = (folder / CHECKPOINT).exists()
    if begun and resume:
        try:
            before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
            had = "random weights" if before is None else f"the prior '{before['name']}'"
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UsageError(f"{path} is damaged: train into another folder") from error
        if before != now:
            raise UsageError(f"the run in {folder.parent} was started from {had}: resume it with the same --start")
    elif not begun and now is None:
        path.unlink(missing_ok=True)  # of a run that never came to its first checkpoint
    elif not begun:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(now).encode())


def _start(name: str, grid: WorkingGrid) -> PriorBundle:
    """The prior to start from; raises UsageError when it works on another grid or cannot be trained."""
    prior = load_prior(name)
    if not isinstance(prior.denoiser, NetworkDenoiser):
        raise UsageError(f"the prior '{prior.name}' has no weights to start from")
    if prior.grid != grid:
        had = "no grid of CT" if prior.grid is None else f"{prior.grid.shape} pixels of {prior.grid.pixel_mm:g} mm"
        raise UsageError(f"the prior '{prior.name}' works on {had}: give --shape and --pixel-mm the same")
    return prior
