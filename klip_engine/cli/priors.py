"""`klip-engine train`, `calibrate` and `import`: what makes a prior ready for use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from klip_engine.cli.options import Device, Progress, Seed, SettingsOptions, takes_settings
from klip_engine.cli.running import IsCancelled, run, start_facts
from klip_engine.console import ProgressStyle, Reporter


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
    start: Annotated[
        str | None,
        typer.Option(metavar="PRIOR", help="Begin with the weights of this prior, not at random."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    optimiser: Annotated[str, typer.Option(help="muon or adamw (docs/priors.md).")] = "muon",
    learning_rate: Annotated[float, typer.Option()] = 1e-3,
    noise_levels: Annotated[
        tuple[float, float],
        typer.Option(help="Mean and standard deviation of ln(sigma / 1000 HU) in training: edm, patch-edm."),
    ] = (-1.5, 1.5),
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

    def work(reporter: Reporter, cancelled: IsCancelled) -> None:
        from klip_engine.pipeline import pick_device
        from klip_engine.training.command import TrainingJob, run_training
        from klip_engine.training.training_settings import TrainingSettings, choose_family, default_network
        from klip_engine.working_grid import WorkingGrid

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
                optimiser=optimiser,
                learning_rate=learning_rate,
                sigma_log_mean=noise_levels[0],
                sigma_log_std=noise_levels[1],
                bfloat16=bfloat16,
                seed=seed or 0,
                device=pick_device(device or "auto"),
                family=chosen,
                patch=patch_size or 56,
                network=default_network(chosen),
            ),
            resume=resume,
            start=start,
            note="" if note is None else note.read_text(encoding="utf-8"),
        )
        reporter.start(data=", ".join(str(path) for path in data), device=job.settings.device)
        facts = run_training(job, reporter.progress, cancelled)
        if facts is not None:
            reporter.done(f"Prior written to {out} (model card: {out / 'docs' / 'README.md'})", out=str(out))

    run(work, progress)


@takes_settings(without=("false_alarms", "seed"))
def calibrate(
    prior: Annotated[str, typer.Argument(metavar="PRIOR", help="A built-in prior or a bundle folder.")],
    healthy: Annotated[
        list[Path] | None,
        typer.Option(help="Healthy scans (files, DICOM folders, tables) to keep as the prior's reference slices."),
    ] = None,
    per_scan: Annotated[
        int, typer.Option(help="Reference slices of each healthy scan, in runs of five neighbours.", min=1)
    ] = 15,
    slices: Annotated[
        int | None, typer.Option(help="At most so many slices; more tell finer rates apart. Default: all.", min=2)
    ] = None,
    *,
    options: SettingsOptions,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Measure what is usual under these settings, on healthy slices, and keep it in the bundle.

    The slices come from --healthy, else from those kept beside the prior, else they are drawn from the prior.
    """

    def work(reporter: Reporter, cancelled: IsCancelled) -> None:
        from klip_engine.calibration import calibrate_scores, healthy_reference, keep_reference, usable_variants
        from klip_engine.errors import UsageError
        from klip_engine.files import writable_folder
        from klip_engine.io.sources import find_sources
        from klip_engine.pipeline import pick_device
        from klip_engine.priors import load_prior
        from klip_engine.settings import all_scores
        from klip_engine.slices import Watch

        settings = options.choose()
        chosen = pick_device(settings.device)
        bundle = load_prior(prior, chosen)
        cure = "copy the bundle to a folder of your own and name that as the prior"
        if healthy and bundle.built_in:
            raise UsageError(
                f"the prior '{prior}' comes with the engine, and so do the slices it is compared with: {cure} "
                f"(it is {bundle.folder})"
            )
        folder = writable_folder(bundle.folder / "null", cure)
        watch = Watch(reporter.progress, cancelled)
        reporter.start(**start_facts(prior, settings))
        reference = None
        if healthy:
            if bundle.grid is None:
                raise UsageError("healthy scans are CT, this prior is of pictures: leave out --healthy")
            reference = healthy_reference(find_sources(healthy), bundle.ct_grid, per_scan, watch)
        named = [settings.score] if options.score else all_scores(settings)
        scores = [variant for score in named for variant in usable_variants(score, bundle, reference)]
        nulls = calibrate_scores(bundle, settings, scores, chosen, healthy=reference, count=slices, watch=watch)
        if reference is not None:
            keep_reference(bundle, reference)
        paths = [null.save(folder) for null in nulls]
        names = ", ".join(one.name for one in named)
        sources = " and ".join(dict.fromkeys(null.source for null in nulls))
        message = f"Null distributions of {sources} written to {folder} (scores: {names})"
        reporter.done(message, out=[str(path) for path in paths], slices=max(len(null.maxima) for null in nulls))

    run(work, progress)


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

    def work(reporter: Reporter, cancelled: IsCancelled) -> None:
        from klip_engine.priors.importing import ImportSettings, import_prior

        settings = ImportSettings(kind, hu, values, pixel_mm, shape, patch_size, config, licence, source)
        reporter.start(file=str(weights), kind=kind)
        sha256 = import_prior(weights, out, settings)
        card = out / "docs" / "README.md"
        reporter.done(f"Prior written to {out} (model card: {card})", out=str(out), hash=f"sha256:{sha256}")

    run(work, progress)
