"""One training job from files to bundle: what `klip-engine train` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klip_engine.errors import Cancelled
from klip_engine.priors import save_bundle
from klip_engine.priors.edm import EDMDenoiser
from klip_engine.training.dataset import find_sources, load_slices
from klip_engine.training.model_card import model_card, training_facts
from klip_engine.training.pictures import TrainingDiary, require_matplotlib
from klip_engine.training.trainer import TrainingReport, TrainingSettings, is_main_process, train
from klip_engine.volume import WorkingGrid


@dataclass(frozen=True)
class TrainingJob:
    """Data in, bundle out; `note` is Markdown for the model card (attributions of the data)."""

    data: tuple[Path, ...]
    bundle: Path
    grid: WorkingGrid
    settings: TrainingSettings
    validation: tuple[Path, ...] = ()
    exclude: tuple[str, ...] = ()
    resume: bool = False
    note: str = ""


def run_training(
    job: TrainingJob,
    progress: Callable[[str, int, int], None],
    cancelled: Callable[[], bool],
) -> dict[str, Any] | None:
    """Train and write the bundle; returns the training facts, or None in a helping process of torchrun.

    Raises Cancelled after saving a checkpoint when the caller stops it.
    """
    require_matplotlib()
    main = is_main_process()
    data = load_slices(
        find_sources(job.data, job.exclude), job.grid, progress=lambda a, b: progress("reading", a, b)
    )
    validation = None
    if job.validation:
        validation = load_slices(
            find_sources(job.validation, job.exclude), job.grid, progress=lambda a, b: progress("reading", a, b)
        )
    folder = job.bundle / "training"
    diary = TrainingDiary(folder) if main else None
    last: list[TrainingReport] = []

    def report(now: TrainingReport, denoiser: EDMDenoiser) -> None:
        last[:] = [now]
        progress("training (permille)", round(1000 * now.fraction), 1000)
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
        resume=job.resume,
        report=report,
        cancelled=cancelled,
    )
    if cancelled():
        raise Cancelled(f"training stopped; continue it with --resume (checkpoint in {folder})")
    if not main:
        return None
    facts = training_facts(data, validation, job.settings, last[0] if last else None, list(job.exclude))
    save_bundle(
        job.bundle,
        denoiser,
        job.grid,
        job.settings.network.monai_arguments(),
        training=facts,
        model_card=model_card(job.bundle.name, job.grid, data, facts, job.note),
        description="Diffusion prior of healthy axial CT slices for KLIP anomaly detection",
    )
    return facts
