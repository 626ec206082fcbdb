"""`klip-engine evaluate` and `tune`: lesions put into healthy scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from klip_engine.cli.options import HealthySlices, HealthyVolumes, Prior, Progress, SettingsOptions, takes_settings
from klip_engine.cli.running import IsCancelled, run, start_facts
from klip_engine.console import ProgressStyle, Reporter


@takes_settings(without=("score", "false_alarms"))
def evaluate(
    volumes: HealthyVolumes,
    json_file: Annotated[Path, typer.Option("--json", metavar="FILE", help="File for the result.")],
    lesions: Annotated[
        str, typer.Option(help="Kinds of lesion to insert, with commas: tumor, nodule, star, effusion, metal.")
    ] = "tumor,nodule,star,effusion,metal",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for table and pictures; default: beside FILE.")
    ] = None,
    count: Annotated[int, typer.Option(help="Lesions per kind and volume.", min=1)] = 10,
    healthy_slices: HealthySlices = 24,
    matched: Annotated[
        bool, typer.Option(help="Score the slices of the lesions without them, too: at most one more per lesion.")
    ] = True,
    reference: Annotated[
        list[Path] | None,
        typer.Option(help="Healthy scans of other patients to learn from; default: the slices beside the prior."),
    ] = None,
    reference_slices: Annotated[int, typer.Option(help="Reference slices, drawn or chosen.", min=4)] = 64,
    baselines: Annotated[str, typer.Option(help="Methods of comparison: all, none or names with commas.")] = "all",
    score: Annotated[list[str] | None, typer.Option(help="Scores to compare; default: all.")] = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples of the confidence intervals.", min=1)] = 1000,
    resume: Annotated[bool, typer.Option(help="Continue the run that FILE was meant for.")] = False,
    prior: Prior = "default",
    *,
    options: SettingsOptions,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Insert lesions into healthy scans and measure how well each score and each other method finds them."""

    def work(reporter: Reporter, cancelled: IsCancelled) -> None:
        from klip_engine.evaluation.command import EvaluationJob, choose_baselines, run_evaluation, split_names
        from klip_engine.evaluation.run_settings import RunSettings
        from klip_engine.evaluation.statistics import Bootstrap
        from klip_engine.evaluation.study import StudySettings
        from klip_engine.io.sources import find_sources
        from klip_engine.settings import all_scores

        base = options.base()
        scores = tuple(score or [one.name for one in all_scores(base)])
        settings = options.choose(score=None if base.score.name in scores else scores[0])
        job = EvaluationJob(
            scans=tuple(find_sources(volumes)),
            json_file=json_file,
            study=StudySettings(split_names(lesions), count, healthy_slices, settings.seed, matched),
            run=RunSettings(settings, scores, reference_slices),
            prior=prior,
            out=out,
            reference=tuple(find_sources(reference)) if reference else (),
            baselines=choose_baselines(baselines),
            bootstrap=Bootstrap(resamples, seed=settings.seed),
            resume=resume,
        )
        reporter.start(
            **start_facts(prior, settings) | {"score": ", ".join(scores)}, lesions=lesions, scans=len(job.scans)
        )
        document = run_evaluation(job, reporter.progress, cancelled)
        reporter.done(
            f"Evaluation written to {json_file}; open {job.report_folder / 'evaluation.md'}",
            json=str(json_file),
            out=str(job.report_folder),
            counts=document["counts"],
        )

    run(work, progress)


@takes_settings(without=("score", "false_alarms"))
def tune(
    volumes: HealthyVolumes,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="File for `detect --settings`.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="All that was tried; default: beside FILE, as NAME-tuning.json.")
    ] = None,
    weighting: Annotated[
        str, typer.Option(help="Weighting of the pulls to tune: plain (the paper's), variance, coherent, or all.")
    ] = "plain",
    count: Annotated[int, typer.Option(help="Stars per volume.", min=1)] = 10,
    healthy_slices: HealthySlices = 24,
    prior: Prior = "default",
    *,
    options: SettingsOptions,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Tune window and block of the score as the paper does: on healthy slices with star artefacts, nothing else."""

    def work(reporter: Reporter, cancelled: IsCancelled) -> None:
        from klip_engine.evaluation.tuning import TuningJob, run_tuning
        from klip_engine.io.sources import find_sources

        settings = options.choose()
        scans = tuple(find_sources(volumes))
        job = TuningJob(scans, out, json_file, weighting, count, healthy_slices, settings, prior)
        reporter.start(**start_facts(prior, settings) | {"score": weighting}, scans=len(job.scans))
        best = run_tuning(job, reporter.progress, cancelled)
        low, high = best.term.window
        message = (
            f"Best on stars: {best.term.weighting}, window {low:.3g} to {high:.3g}, block of {best.block_pixels} "
            f"pixels: image level {best.image_auroc:.3f}, dataset level {best.dataset_auroc:.3f}. "
            f"Use it with --settings {out}"
        )
        reporter.done(message, out=str(out), best=best.to_dict())

    run(work, progress)
