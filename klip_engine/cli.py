"""The command line: one command per task, no logic of its own. The contract is docs/cli.md."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from klip_engine.console import ProgressStyle, Reporter, make_reporter, stop_on_signals
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
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.", min=0)]
Preset = Annotated[str, typer.Option(help="Settings to start from: default, fast or sparse-24.")]
Operator = Annotated[
    str | None, typer.Option(help="What is measured: identity, parallel, fan-flat, fan-curved or blur.")
]
Views = Annotated[int | None, typer.Option(help="Views of a CT operator.", min=1)]
SamplerName = Annotated[str | None, typer.Option("--sampler", help="Posterior sampler.")]
Steps = Annotated[int | None, typer.Option(help="Noise levels, one network evaluation each.", min=2)]
Samples = Annotated[int | None, typer.Option(help="Posterior samples per slice.", min=1)]
Score = Annotated[str | None, typer.Option(help="Score: klip, klip-variance or klip-coherent.")]
BatchSlices = Annotated[int | None, typer.Option(help="Slices computed together.", min=1)]


@app.command()
def detect(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Volume file, DICOM file or DICOM folder.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")],
    prior: Prior = "default",
    preset: Preset = "default",
    operator: Operator = None,
    views: Views = None,
    sampler: SamplerName = None,
    steps: Steps = None,
    samples: Samples = None,
    score: Score = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(help="Accepted share of slices drawn from the prior on which something is marked."),
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    batch_slices: BatchSlices = None,
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID, where a folder holds several.")] = None,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Find suspicious regions in a CT and write reconstruction, score, regions, table and report."""

    def work(reporter: Reporter, cancelled: Callable[[], bool]) -> None:
        from klip_engine.io import check_replaceable, read_ct, write_results
        from klip_engine.pipeline import detect
        from klip_engine.settings import choose_settings

        settings = choose_settings(
            preset,
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
        loaded = read_ct(Path(source), series=series)
        reporter.start(**_facts(prior, settings), slices=loaded.volume.geometry.size[2])
        detection = detect(loaded, prior, settings, progress=reporter.progress, cancelled=cancelled)
        _stop_if(cancelled)
        write_results(detection, out)
        reporter.done(_summary(detection, out), **_done_facts(detection, out))

    _run(work, progress)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path("klip-demo"),
    device: Device = "auto",
    seed: Seed = 0,
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
    note: Annotated[
        Path | None,
        typer.Option(help="Markdown to append to the model card (attributions).", exists=True, dir_okay=False),
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Train a prior on healthy CT; under torchrun on several devices."""

    def work(reporter: Reporter, cancelled: Callable[[], bool]) -> None:
        from klip_engine.pipeline import pick_device
        from klip_engine.training.command import TrainingJob, run_training
        from klip_engine.training.trainer import TrainingSettings
        from klip_engine.volume import WorkingGrid

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
                seed=seed,
                device=pick_device(device),
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
    slices: Annotated[int, typer.Option(help="Slices to draw; more tell finer rates apart.", min=2)] = 256,
    preset: Preset = "default",
    operator: Operator = None,
    views: Views = None,
    sampler: SamplerName = None,
    steps: Steps = None,
    samples: Samples = None,
    score: Score = None,
    device: Device = "auto",
    batch_slices: BatchSlices = None,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Measure what is usual under these settings, on slices drawn from the prior, and keep it in the bundle."""

    def work(reporter: Reporter, cancelled: Callable[[], bool]) -> None:
        from klip_engine.calibration import calibrate
        from klip_engine.pipeline import pick_device
        from klip_engine.priors import load_prior
        from klip_engine.scoring.null import writable_folder
        from klip_engine.settings import choose_settings
        from klip_engine.slices import Watch

        settings = choose_settings(
            preset,
            operator=operator,
            views=views,
            sampler=sampler,
            steps=steps,
            samples=samples,
            score=score,
            device=device,
            batch_slices=batch_slices,
        )
        chosen = pick_device(device)
        bundle = load_prior(prior, chosen)
        folder = writable_folder(bundle.folder / "null")
        reporter.start(**_facts(prior, settings), slices=slices)
        null = calibrate(bundle, settings, chosen, count=slices, watch=Watch(reporter.progress, cancelled))
        path = null.save(folder)
        reporter.done(f"Null distribution of {slices} slices written to {path}", out=str(path), slices=slices)

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


def _facts(prior: str, settings: Any) -> dict[str, Any]:
    sampling = settings.sampling
    return {
        "version": __version__,
        "prior": prior,
        "operator": settings.operator.name,
        "score": settings.score.name,
        "evaluations_per_slice": sampling.steps * sampling.samples,
    }


def _done_facts(detection: Any, out: Path) -> dict[str, Any]:
    return {"out": str(out), "findings": len(detection.findings), "timing": detection.timing}


def _summary(detection: Any, out: Path) -> str:
    from klip_engine.detection import NOTICE

    lines = [f"{len(detection.findings)} suspicious regions in {len(detection.slices)} slices."]
    for finding in detection.findings[:5]:
        x, y, z = finding.centroid_lps_mm
        first, last = finding.slice_range
        lines.append(
            f"  {finding.label}: score {finding.score:.3g} (p {finding.p_value:.3g}), {finding.volume_ml:.1f} ml, "
            f"slices {first}-{last}, LPS ({x:.0f}, {y:.0f}, {z:.0f}) mm"
        )
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
