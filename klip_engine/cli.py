"""The command line: one command per task, no logic of its own. The contract is docs/cli.md."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from klip_engine.console import ProgressStyle, Reporter, make_reporter, stop_on_signals, text_table
from klip_engine.errors import Cancelled, KlipError, resource_errors
from klip_engine.version import __version__

app = typer.Typer(
    name="klip-engine",
    help="Finds what does not belong in a CT scan. Research software, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Prior = Annotated[str, typer.Option(help="A built-in prior or a bundle folder.")]
Progress = Annotated[ProgressStyle, typer.Option(help="Progress for people, for programs, or none.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda; default: auto, or as in --settings.")]
Seed = Annotated[int | None, typer.Option(help="Seed of all random numbers; default: 0.", min=0)]
Preset = Annotated[
    str,
    typer.Option(
        help="Settings to start from: default, fast, sparse-24, fan-24, limited-angle, low-dose, deblur or denoise."
    ),
]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", help="Settings from a file instead of a preset: of `tune`, or a findings.json."),
]
Operator = Annotated[
    str | None, typer.Option(help="What is measured: identity, parallel, fan-flat, fan-curved or blur.")
]
Views = Annotated[int | None, typer.Option(help="Views of a CT operator.", min=1)]
SamplerName = Annotated[str | None, typer.Option("--sampler", help="Posterior sampler.")]
Steps = Annotated[int | None, typer.Option(help="Noise levels, one network evaluation each.", min=2)]
Samples = Annotated[int | None, typer.Option(help="Posterior samples per slice.", min=1)]
Score = Annotated[str | None, typer.Option(help="klip-multiscale, klip-coherent, klip-variance, klip or kl.")]
BatchSlices = Annotated[int | None, typer.Option(help="Slices computed together.", min=1)]


@app.command()
def detect(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Volume file, DICOM file or folder, or picture.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")],
    prior: Prior = "default",
    preset: Preset = "default",
    settings_file: SettingsFile = None,
    operator: Operator = None,
    views: Views = None,
    sampler: SamplerName = None,
    steps: Steps = None,
    samples: Samples = None,
    score: Score = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(help="Accepted share of healthy slices on which something is marked."),
    ] = None,
    device: Device = None,
    seed: Seed = None,
    batch_slices: BatchSlices = None,
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID, where a folder holds several.")] = None,
    save_updates: Annotated[
        bool, typer.Option("--save-updates", help="Keep the normalised updates of every slice, in OUT/updates.")
    ] = False,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Find suspicious regions in a CT or photograph; write reconstruction, score, regions, table and report."""

    def work(reporter: Reporter, cancelled: Callable[[], bool]) -> None:
        from klip_engine.io import check_replaceable, scratch_folder, write_results
        from klip_engine.pipeline import detect, read_input
        from klip_engine.priors import load_prior
        from klip_engine.settings import choose_settings

        settings = choose_settings(
            preset,
            settings=settings_file,
            operator=operator,
            views=views,
            sampler=sampler,
            steps=steps,
            samples=samples,
            score=score,
            false_alarms=false_alarms,
            device=device,
            seed=seed,
            batch_slices=batch_slices,
        )
        check_replaceable(out)
        bundle = load_prior(prior)
        loaded = read_input(Path(source), bundle, series=series)
        reporter.start(**_facts(prior, settings), slices=loaded.description["slices"])
        watch: dict[str, Any] = {"progress": reporter.progress, "cancelled": cancelled}
        with scratch_folder(out) if save_updates else nullcontext() as scratch:
            detection = detect(loaded, bundle, settings, **watch, save_updates=scratch)
            _stop_if(cancelled)
            write_results(detection, out, extras=[_keep_updates(scratch)] if scratch else [])
        reporter.done(_summary(detection, out), **_done_facts(detection, out))

    _run(work, progress)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path("klip-demo"),
    device: Device = None,
    seed: Seed = None,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Run the main job on the CT that comes with the engine; one lesion was inserted into it."""

    def work(reporter: Reporter, cancelled: Callable[[], bool]) -> None:
        from klip_engine.demo import demo_ct, demo_verdict
        from klip_engine.io import check_replaceable, read_ct, write_results
        from klip_engine.pipeline import detect
        from klip_engine.settings import choose_settings

        settings = choose_settings(device=device, seed=seed)
        check_replaceable(out)
        loaded = read_ct(demo_ct())
        reporter.start(**_facts("default", settings), slices=loaded.volume.geometry.size[2])
        detection = detect(loaded, "default", settings, progress=reporter.progress, cancelled=cancelled)
        _stop_if(cancelled)
        write_results(detection, out)
        verdict = demo_verdict(detection)
        reporter.done(f"{_summary(detection, out)}\n{verdict}", **_done_facts(detection, out), verdict=verdict)

    _run(work, progress)


@app.command()
def train(
    data: Annotated[
        list[Path], typer.Argument(help="Volume files, DICOM folders or tables (.csv: file, patient, slices).")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="BUNDLE", help="Folder for the prior.")],
    validation: Annotated[
        list[Path] | None, typer.Option(help="Data of other patients, to watch the denoising error on.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Patients to leave out of the training.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Length of the training by the clock.")] = None,
    images: Annotated[int | None, typer.Option(help="Length of the training in images.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in BUNDLE.")] = False,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    learning_rate: Annotated[float, typer.Option()] = 4e-4,
    bfloat16: Annotated[bool, typer.Option(help="Mixed precision.")] = False,
    pixel_mm: Annotated[float, typer.Option(help="Pixel size of the working grid.")] = 3.0,
    shape: Annotated[tuple[int, int], typer.Option(help="Rows and columns of the working grid.")] = (128, 160),
    family: Annotated[
        str, typer.Option(help="Kind of prior: edm, patch-edm, ddpm or ve (docs/priors.md).")
    ] = "edm",
    patches: Annotated[bool, typer.Option("--patches", help="Short for --family patch-edm.")] = False,
    patch_size: Annotated[
        int | None, typer.Option(help="Side of the patches in pixels; default: 56.", min=1)
    ] = None,
    note: Annotated[
        Path | None,
        typer.Option(help="Markdown to append to the model card (attributions).", exists=True, dir_okay=False),
    ] = None,
    device: Device = None,
    seed: Seed = None,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Train a prior on healthy CT; under torchrun on several devices."""

    def work(reporter: Reporter, cancelled: Callable[[], bool]) -> None:
        from klip_engine.pipeline import pick_device
        from klip_engine.training.command import TrainingJob, run_training
        from klip_engine.training.trainer import TrainingSettings, choose_family, default_network
        from klip_engine.volume import WorkingGrid

        chosen = choose_family(family, patches, patch_size)

        job = TrainingJob(
            data=tuple(data),
            validation=tuple(validation or ()),
            exclude=tuple(exclude or ()),
            bundle=out,
            grid=WorkingGrid(shape, pixel_mm),
            settings=TrainingSettings(
                minutes=minutes,
                images=images,
                batch_size=batch_size,
                learning_rate=learning_rate,
                bfloat16=bfloat16,
                seed=seed or 0,
                device=pick_device(device or "auto"),
                family=chosen,
                patch=patch_size or 56,
                network=default_network(chosen),
            ),
            resume=resume,
            note="" if note is None else note.read_text(encoding="utf-8"),
        )
        reporter.start(data=", ".join(str(path) for path in data), device=job.settings.device)
        facts = run_training(job, reporter.progress, cancelled)
        if facts is not None:
            reporter.done(f"Prior written to {out} (model card: {out / 'docs' / 'README.md'})", out=str(out))

    _run(work, progress)


@app.command()
def calibrate(
    prior: Annotated[str, typer.Argument(metavar="PRIOR", help="A built-in prior or a bundle folder.")],
    healthy: Annotated[
        list[Path] | None,
        typer.Option(help="Healthy scans (files, DICOM folders, tables) to keep as the prior's reference slices."),
    ] = None,
    per_scan: Annotated[int, typer.Option(help="Reference slices to take of each healthy scan.", min=1)] = 8,
    slices: Annotated[
        int | None, typer.Option(help="At most so many slices; more tell finer rates apart. Default: all.", min=2)
    ] = None,
    preset: Preset = "default",
    settings_file: SettingsFile = None,
    operator: Operator = None,
    views: Views = None,
    sampler: SamplerName = None,
    steps: Steps = None,
    samples: Samples = None,
    score: Score = None,
    device: Device = None,
    batch_slices: BatchSlices = None,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Measure what is usual under these settings, on healthy slices, and keep it in the bundle.

    The slices come from --healthy, else from those kept beside the prior, else they are drawn from the prior.
    """

    def work(reporter: Reporter, cancelled: Callable[[], bool]) -> None:
        from klip_engine.calibration import calibrate_scores, healthy_reference, keep_reference
        from klip_engine.files import writable_folder
        from klip_engine.io.sources import find_sources
        from klip_engine.pipeline import pick_device
        from klip_engine.priors import load_prior
        from klip_engine.settings import all_scores, choose_settings
        from klip_engine.slices import Watch

        settings = choose_settings(
            preset,
            settings=settings_file,
            operator=operator,
            views=views,
            sampler=sampler,
            steps=steps,
            samples=samples,
            score=score,
            device=device,
            batch_slices=batch_slices,
        )
        chosen = pick_device(settings.device)
        bundle = load_prior(prior, chosen)
        cure = "copy the bundle to a folder of your own and name that as the prior"
        folder = writable_folder(bundle.folder / "null", cure)
        watch = Watch(reporter.progress, cancelled)
        reporter.start(**_facts(prior, settings))
        reference = None
        if healthy:
            reference = healthy_reference(find_sources(healthy), bundle.ct_grid, per_scan, watch)
        scores = [settings.score] if score else all_scores(settings)
        nulls = calibrate_scores(bundle, settings, scores, chosen, healthy=reference, count=slices, watch=watch)
        if reference is not None:
            keep_reference(bundle, reference)
        paths = [null.save(folder) for null in nulls]
        names = ", ".join(one.name for one in scores)
        message = f"Null distributions of {nulls[0].source} written to {folder} (scores: {names})"
        reporter.done(message, out=[str(path) for path in paths], slices=len(nulls[0].maxima))

    _run(work, progress)


@app.command()
def evaluate(
    volumes: Annotated[
        list[Path],
        typer.Argument(help="Healthy volume files, DICOM folders or tables (.csv: file, patient, slices)."),
    ],
    json_file: Annotated[Path, typer.Option("--json", metavar="FILE", help="File for the result.")],
    lesions: Annotated[
        str, typer.Option(help="Kinds of lesion to insert, with commas: tumor, nodule, star, effusion, metal.")
    ] = "tumor,nodule,star,effusion,metal",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for table and pictures; default: beside FILE.")
    ] = None,
    count: Annotated[int, typer.Option(help="Lesions per kind and volume.", min=1)] = 10,
    healthy_slices: Annotated[int, typer.Option(help="Healthy slices per volume, evenly chosen.", min=1)] = 24,
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
    preset: Preset = "default",
    settings_file: SettingsFile = None,
    operator: Operator = None,
    views: Views = None,
    sampler: SamplerName = None,
    steps: Steps = None,
    samples: Samples = None,
    device: Device = None,
    seed: Seed = None,
    batch_slices: BatchSlices = None,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Insert lesions into healthy scans and measure how well each score and each other method finds them."""

    def work(reporter: Reporter, cancelled: Callable[[], bool]) -> None:
        from klip_engine.evaluation.command import EvaluationJob, choose_baselines, run_evaluation, split_names
        from klip_engine.evaluation.run import RunSettings
        from klip_engine.evaluation.statistics import Bootstrap
        from klip_engine.evaluation.study import StudySettings
        from klip_engine.io.sources import find_sources
        from klip_engine.settings import all_scores, choose_settings

        base = choose_settings(preset, settings=settings_file)
        scores = tuple(score or [one.name for one in all_scores(base)])
        settings = choose_settings(
            preset,
            settings=settings_file,
            operator=operator,
            views=views,
            sampler=sampler,
            steps=steps,
            samples=samples,
            score=None if base.score.name in scores else scores[0],
            device=device,
            seed=seed,
            batch_slices=batch_slices,
        )
        job = EvaluationJob(
            scans=tuple(find_sources(volumes)),
            json_file=json_file,
            study=StudySettings(split_names(lesions), count, healthy_slices, settings.seed),
            run=RunSettings(settings, scores, reference_slices),
            prior=prior,
            out=out,
            reference=tuple(find_sources(reference)) if reference else (),
            baselines=choose_baselines(baselines),
            bootstrap=Bootstrap(resamples, seed=settings.seed),
            resume=resume,
        )
        reporter.start(
            **_facts(prior, settings) | {"score": ", ".join(scores)}, lesions=lesions, scans=len(job.scans)
        )
        document = run_evaluation(job, reporter.progress, cancelled)
        reporter.done(
            f"Evaluation written to {json_file}; open {job.report_folder / 'evaluation.md'}",
            json=str(json_file),
            out=str(job.report_folder),
            counts=document["counts"],
        )

    _run(work, progress)


@app.command()
def tune(
    volumes: Annotated[
        list[Path],
        typer.Argument(help="Healthy volume files, DICOM folders or tables (.csv: file, patient, slices)."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="File for `detect --settings`.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="All that was tried; default: beside FILE, as NAME-tuning.json.")
    ] = None,
    weighting: Annotated[
        str, typer.Option(help="Weighting of the pulls to tune: plain (the paper's), variance, coherent, or all.")
    ] = "plain",
    count: Annotated[int, typer.Option(help="Stars per volume.", min=1)] = 10,
    healthy_slices: Annotated[int, typer.Option(help="Healthy slices per volume, evenly chosen.", min=1)] = 24,
    prior: Prior = "default",
    preset: Preset = "default",
    settings_file: SettingsFile = None,
    operator: Operator = None,
    views: Views = None,
    sampler: SamplerName = None,
    steps: Steps = None,
    samples: Samples = None,
    device: Device = None,
    seed: Seed = None,
    batch_slices: BatchSlices = None,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Tune window and block of the score as the paper does: on healthy slices with star artefacts, nothing else."""

    def work(reporter: Reporter, cancelled: Callable[[], bool]) -> None:
        from klip_engine.evaluation.tuning import TuningJob, run_tuning
        from klip_engine.io.sources import find_sources
        from klip_engine.settings import choose_settings

        settings = choose_settings(
            preset,
            settings=settings_file,
            operator=operator,
            views=views,
            sampler=sampler,
            steps=steps,
            samples=samples,
            device=device,
            seed=seed,
            batch_slices=batch_slices,
        )
        scans = tuple(find_sources(volumes))
        job = TuningJob(scans, out, json_file, weighting, count, healthy_slices, settings, prior)
        reporter.start(**_facts(prior, settings) | {"score": weighting}, scans=len(job.scans))
        best = run_tuning(job, reporter.progress, cancelled)
        low, high = best.term.window
        message = (
            f"Best on stars: {best.term.weighting}, window {low:.3g} to {high:.3g}, block of {best.block_pixels} "
            f"pixels: image level {best.image_auroc:.3f}, dataset level {best.dataset_auroc:.3f}. "
            f"Use it with --settings {out}"
        )
        reporter.done(message, out=str(out), best=best.to_dict())

    _run(work, progress)


@app.command(name="import")
def import_weights(
    weights: Annotated[Path, typer.Argument(metavar="FILE", help="Published weights: a file or a folder.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="BUNDLE", help="Folder for the prior.")],
    kind: Annotated[str, typer.Option(help="What the weights are: edm-pickle, ncsnpp-flax or diffusers.")],
    hu: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Hounsfield units at the two ends of --values; without it, a prior of pictures."),
    ] = None,
    pixel_mm: Annotated[float | None, typer.Option(help="Pixel size of the CT it was trained on.")] = None,
    values: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Range of values it was trained on; default: 0 1, or -1 1 for whole-image EDM, diffusers."
        ),
    ] = None,
    shape: Annotated[
        tuple[int, int] | None, typer.Option(help="Rows and columns of whole images, where the file has none.")
    ] = None,
    patch_size: Annotated[int, typer.Option(help="Pixels of a patch, for a prior of patches.", min=1)] = 56,
    config: Annotated[
        str | None, typer.Option(help="Of ncsnpp-flax: ct2d_320, ldct_512, ct2d or a JSON file.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, for the model card.")] = None,
    source: Annotated[str | None, typer.Option(help="Where they come from, for the model card.")] = None,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Make a prior of published weights; nothing of the file is executed (docs/importing.md)."""

    def work(reporter: Reporter, cancelled: Callable[[], bool]) -> None:
        from klip_engine.priors.importing import ImportSettings, import_prior

        settings = ImportSettings(kind, hu, values, pixel_mm, shape, patch_size, config, licence, source)
        reporter.start(file=str(weights), kind=kind)
        sha256 = import_prior(weights, out, settings)
        card = out / "docs" / "README.md"
        reporter.done(f"Prior written to {out} (model card: {card})", out=str(out), hash=f"sha256:{sha256}")

    _run(work, progress)


@app.command()
def score(
    artifacts: Annotated[
        list[Path],
        typer.Argument(
            metavar="ARTIFACT...", help="Artifacts (.npz) of the published pipeline, or folders of them."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for maps, pictures and scores.")],
    window: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="START END", help="Kept steps from START up to, not including, END; default: all."),
    ] = None,
    block: Annotated[int, typer.Option(help="Side in pixels of the adjacent square blocks.", min=1)] = 1,
    mask: Annotated[
        list[Path] | None,
        typer.Option(help="Lesions of the artifacts, in their order: .npz, .npy or images, single or stacked."),
    ] = None,
    body: Annotated[Path | None, typer.Option(help="Body: one mask for all, or a stack of one each.")] = None,
    healthy: Annotated[
        list[Path] | None, typer.Option(help="Healthy artifacts, or folders of them, to compare with.")
    ] = None,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Score saved normalised updates by the published recipe; see `detect --save-updates`."""

    def work(reporter: Reporter, cancelled: Callable[[], bool]) -> None:
        from klip_engine.artifact_scores import SCORES, ScoreJob, find_artifacts, score_artifacts, write_scores
        from klip_engine.io import check_replaceable
        from klip_engine.slices import Watch

        check_replaceable(out, SCORES)
        job = ScoreJob(
            find_artifacts(artifacts), find_artifacts(healthy or ()), window, block, tuple(mask or ()), body
        )
        reporter.start(version=__version__, artifacts=len(job.artifacts), healthy=len(job.healthy), block=block)
        scores = score_artifacts(job, Watch(reporter.progress, cancelled))
        _stop_if(cancelled)
        write_scores(scores, out)
        reporter.done(
            _score_summary(scores, out),
            out=str(out),
            scores={item.name: item.score for item in scores.items},
            image_auroc=scores.image_auroc,
            dataset_auroc=scores.dataset_auroc,
        )

    _run(work, progress)


@app.command()
def info(
    what: Annotated[str, typer.Argument(metavar="INPUT|PRIOR", help="A CT, or a prior.")],
) -> None:
    """Say what was understood of a CT, or what a prior is."""

    def work(reporter: Reporter, cancelled: Callable[[], bool]) -> None:
        from klip_engine.describe import describe

        print(json.dumps(describe(what), indent=2))

    _run(work, ProgressStyle.NONE)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Finds what does not belong in a CT scan. Research software, not a medical device."""
    if show:
        print(f"klip-engine {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point; leaves with the exit code of the contract (docs/cli.md)."""
    app()


def _run(work: Callable[[Reporter, Callable[[], bool]], None], style: ProgressStyle) -> None:
    """Run a command, report its outcome, and leave with its exit code when it failed."""
    reporter = make_reporter(style)
    try:
        with stop_on_signals() as stop, resource_errors():
            work(reporter, stop.is_set)
    except KlipError as error:
        reporter.error(error)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as interrupt:
        reporter.error(Cancelled("stopped on request; nothing was written"))
        raise typer.Exit(Cancelled.exit_code) from interrupt
    except Exception as error:
        reporter.error(KlipError(_unexpected(error)))
        raise typer.Exit(KlipError.exit_code) from error
    finally:
        reporter.close()


def _unexpected(error: Exception) -> str:
    """A sentence for an error nobody foresaw; the traceback only on request, it may hold the user's paths."""
    if os.environ.get("KLIP_DEBUG"):
        traceback.print_exc()
    return f"unexpected {type(error).__name__}; set KLIP_DEBUG=1 to see where, and please report it"


def _stop_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled("stopped on request; nothing was written")


def _keep_updates(scratch: Path) -> Callable[[Path], None]:
    """Moves the updates, complete by then, into the results."""

    def move(results: Path) -> None:
        scratch.rename(results / "updates")

    return move


def _facts(prior: str, settings: Any) -> dict[str, Any]:
    sampling = settings.sampling
    return {
        "version": __version__,
        "prior": prior,
        "operator": settings.operator.name,
        "score": settings.score.name,
        "evaluations_per_slice": sampling.evaluations,
    }


def _done_facts(detection: Any, out: Path) -> dict[str, Any]:
    return {"out": str(out), "findings": len(detection.findings), "timing": detection.timing}


def _score_summary(scores: Any, out: Path) -> str:
    from klip_engine.artifact_scores import table_rows
    from klip_engine.detection import NOTICE

    rows = table_rows(scores)
    lines = [text_table(["artifact", "highest block", "image AUROC", ""], rows)]
    if len(rows) < len(scores.items):
        lines.append(f"and {len(scores.items) - len(rows)} with lower scores")
    if scores.image_auroc is not None:
        lines.append(f"Image-level AUROC, mean over images: {scores.image_auroc:.3f}")
    if scores.dataset_auroc is not None:
        lines.append(f"Dataset-level AUROC, against the healthy artifacts: {scores.dataset_auroc:.3f}")
    lines += [f"Maps, pictures and scores.json are in {out}", NOTICE]
    return "\n".join(lines)


def _summary(detection: Any, out: Path) -> str:
    from klip_engine.detection import NOTICE

    where = "the photograph" if _of_photograph(detection) else f"{len(detection.slices)} slices"
    lines = [f"{len(detection.findings)} suspicious regions in {where}."]
    lines += [_finding_line(finding, detection) for finding in detection.findings[:5]]
    if len(detection.findings) > 5:
        lines.append(f"  and {len(detection.findings) - 5} weaker ones")
    lines += [f"Notice: {notice}" for notice in detection.notices]
    timing = detection.timing
    lines.append(
        f"{timing['total_s']:.0f} s, {timing['network_evaluations']} network evaluations. "
        f"Open {out / 'report.html'}"
    )
    lines.append(NOTICE)
    return "\n".join(lines)


def _of_photograph(detection: Any) -> bool:
    from klip_engine.detection import PhotographDetection

    return isinstance(detection, PhotographDetection)


def _finding_line(finding: Any, detection: Any) -> str:
    x, y, z = finding.centroid_lps_mm
    first, last = finding.slice_range
    words = f"  {finding.label}: score {finding.score:.3g} (p {finding.p_value:.3g}), "
    if _of_photograph(detection):
        return words + f"{1000 * finding.volume_ml:.0f} pixels around column {x:.0f}, row {y:.0f}"
    return words + f"{finding.volume_ml:.1f} ml, slices {first}-{last}, LPS ({x:.0f}, {y:.0f}, {z:.0f}) mm"
