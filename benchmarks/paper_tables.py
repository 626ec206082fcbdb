"""The published tasks on our data and prior: plain KL and KLIP of every published sampler, and our default.

    python benchmarks/paper_tables.py ../shared/ct [--setups pc,padis,ours] [--samples 1] [--count 2]

Sparse-view CT (24 parallel views) with stars and tumours for the predictor-corrector sampler and PaDIS, deblurring
with stars for the guided DDPM. All setups measure the same slices of unseen patients and use the same prior. Every
slice is kept in --work when it is done: a run that was stopped goes on where it was; setups can be computed by
several processes, the table is printed from what is there (--table). At dataset level the published maps count all
blocks, as published, ours the body's.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from detection import CASES

from klip_engine.calibration import calibrate, known_null
from klip_engine.evaluation.study import HEALTHY, Study, StudySettings, collect_study
from klip_engine.files import write_file
from klip_engine.io.sources import Source
from klip_engine.presets import choose_settings
from klip_engine.priors import PriorBundle, load_prior
from klip_engine.samplers import Step
from klip_engine.scoring.metrics import auroc, image_level_auroc, touched_blocks, touching_blocks
from klip_engine.scoring.null import NullDistribution
from klip_engine.scoring.published import RunningScore
from klip_engine.settings import SCORES, DetectionSettings, plain_data
from klip_engine.slices import NetworkMeter, score_images, score_map
from klip_engine.volume import BoolArray, FloatArray
from klip_engine.working_grid import images_of_hu

KINDS = ("star", "tumor")
IMAGE_WINDOW, DATASET_WINDOW, ALL_STEPS = (65, 85), (35, 40), (0, 100)
"""Of the 100 kept steps."""
NULL_SLICES = 64


@dataclass(frozen=True)
class Recipe:
    """One published map: window of kept steps, block in pixels."""

    window: tuple[int, int]
    block: int


@dataclass(frozen=True)
class Setup:
    """One sampler on one task; recipes: by the figure they serve, "" for our own score maps."""

    task: str
    preset: str
    kinds: tuple[str, ...] = KINDS
    klip_image: Recipe | None = None
    klip_dataset: Recipe | None = None


SETUPS = {
    "pc": Setup("24 views", "klip-pc", KINDS, Recipe(IMAGE_WINDOW, 8), Recipe(DATASET_WINDOW, 8)),
    "padis": Setup("24 views", "klip-padis", KINDS, Recipe(IMAGE_WINDOW, 1), Recipe(IMAGE_WINDOW, 1)),
    "ours": Setup("24 views", "sparse-24"),
    "ddpm": Setup("deblurring", "klip-ddpm-deblur", ("star",), Recipe(IMAGE_WINDOW, 1), Recipe(IMAGE_WINDOW, 1)),
    "ours-deblur": Setup("deblurring", "deblur", ("star",)),
}
"""Blocks are the published 32 of 512 and 2 of 256 pixels on a grid of 3 mm (docs/samplers.md)."""


class PublishedMaps:
    """Observes the sampler and makes the published maps of one batch as the steps come."""

    def __init__(self, recipes: dict[str, Recipe], slices: int, samples: int) -> None:
        self.scores = {
            name: RunningScore(recipe.block, recipe.window, slices, samples) for name, recipe in recipes.items()
        }

    def observe(self, step: Step) -> None:
        """Take one step."""
        for score in self.scores.values():
            score.add_step(step)

    def finish(self, numbers: Sequence[int], samples: int) -> None:
        """Nothing is left to do."""


def settings_of(setup: Setup, samples: int | None) -> DetectionSettings:
    """What the setup runs with; samples: of the published samplers, None for the published number."""
    if setup.klip_image is None:
        settings = choose_settings(setup.preset)
        return replace(settings, score=settings.score.alone)  # one slice at a time, as the published samplers
    return choose_settings(setup.preset, samples=samples)


def run(setup: Setup, settings: DetectionSettings, study: Study, prior: PriorBundle, work: Path) -> None:
    """Score the slices of the study that are not in `work` yet, one at a time."""
    null = None if setup.klip_image else null_of(prior, settings)
    for number, case in enumerate(study.cases):
        path = work / f"slice-{number:04d}.npz"
        if path.is_file() or case.kind not in (HEALTHY, *setup.kinds):
            continue
        meter = NetworkMeter(prior.denoiser)
        start = time.perf_counter()
        hu = study.hu[number : number + 1]
        if setup.klip_image is None:
            assert null is not None
            maps = our_maps(hu, prior, settings, meter, null)
        else:
            maps = published_maps(hu, prior, settings, meter, setup)
        seconds = time.perf_counter() - start
        stream = io.BytesIO()
        np.savez_compressed(stream, seconds=seconds, evaluations=meter.evaluations, **maps)  # type: ignore[arg-type]
        write_file(path, stream.getvalue())
        print(f"{settings.sampling.sampler} {case.kind} {number + 1}/{len(study)}: {seconds:.0f} s", flush=True)


def null_of(prior: PriorBundle, settings: DetectionSettings) -> NullDistribution:
    """The null distribution our own score is in units of."""
    return known_null(prior, settings) or calibrate(prior, settings, "cpu", count=NULL_SLICES)


def our_maps(
    hu: FloatArray, prior: PriorBundle, settings: DetectionSettings, meter: NetworkMeter, null: NullDistribution
) -> dict[str, FloatArray]:
    """Our default score, and the plain divergence from the same samples."""
    scores = [settings.score, SCORES["kl"]]
    scored = score_images(images_of_hu(hu), prior, settings, "cpu", meter, "scoring", scores)
    terms = len(settings.score.terms)
    best = score_map(scored.density[:, :terms], scored.reconstruction, settings.score, prior, null.scales)
    plain = scored.density[:, terms].numpy()
    return {"kl": plain[0], "image": best[0], "dataset": best[0]}


def published_maps(
    hu: FloatArray, prior: PriorBundle, settings: DetectionSettings, meter: NetworkMeter, setup: Setup
) -> dict[str, FloatArray]:
    """The published maps: plain KL, KLIP for the image level and for the dataset level."""
    assert setup.klip_image is not None
    assert setup.klip_dataset is not None
    recipes = {"kl": Recipe(ALL_STEPS, 1), "image": setup.klip_image, "dataset": setup.klip_dataset}
    observer = PublishedMaps(recipes, 1, settings.sampling.samples)
    score_images(images_of_hu(hu), prior, settings, "cpu", meter, "scoring", observer=observer)
    return {name: score.maps()[0] for name, score in observer.scores.items()}


def row(setup: Setup, settings: DetectionSettings, study: Study, work: Path, kind: str, our_seconds: float) -> str:
    """One line of the table, from the slices that are done."""
    stored = {}
    for number, case in enumerate(study.cases):
        path = work / f"slice-{number:04d}.npz"
        if path.is_file() and case.kind in (HEALTHY, kind):
            with np.load(path, allow_pickle=False) as arrays:
                stored[number] = dict(arrays)
    altered = [number for number in stored if study.cases[number].kind == kind]
    healthy = [number for number in stored if study.cases[number].kind == HEALTHY]
    if not altered or not healthy:
        return ""
    cells = []
    for image_map, dataset_map in (("kl", "kl"), ("image", "dataset")):
        image = [image_auroc(stored[n][image_map], study.lesion[n], study.body[n], setup) for n in altered]
        highest = [
            [highest_block(stored[n][dataset_map], study.body[n], setup) for n in group]
            for group in (altered, healthy)
        ]
        cells.append(f"{np.mean(image):.3f} / {auroc(*highest):.3f}")
    seconds = float(np.median([entry["seconds"] for entry in stored.values()]))
    evaluations = int(next(iter(stored.values()))["evaluations"])
    name = f"`{setup.preset}`" + ("" if setup.klip_image else ", our score")
    of = f"{len(altered)} + {len(healthy)}"
    ratio = f"{seconds / our_seconds:.0f}" if our_seconds else ""
    samples = settings.sampling.samples
    return "| " + " | ".join(
        [f"{setup.task}, {kind}", name, of, str(samples), *cells, str(evaluations), f"{seconds:.1f}", ratio]
    ) + " |"  # fmt: skip


def image_auroc(score: FloatArray, lesion: BoolArray, body: BoolArray, setup: Setup) -> float:
    """Image level: over published tiles that touch the body, or over our sliding blocks."""
    if setup.klip_image is None:
        return image_level_auroc(score, touching_blocks(lesion, 1), body)
    block = lesion.shape[0] // score.shape[0]
    return image_level_auroc(score, touched_blocks(lesion, block), touched_blocks(body, block))


def highest_block(score: FloatArray, body: BoolArray, setup: Setup) -> float:
    """Of a slice: of all blocks, as published, or of the body's pixels."""
    return float(score.max() if setup.klip_image else np.where(body, score, 0).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--setups", default=",".join(SETUPS))
    parser.add_argument("--samples", type=int, help="of the published samplers; as published where not given")
    parser.add_argument("--count", type=int, default=2, help="lesions per kind and patient")
    parser.add_argument("--healthy", type=int, default=3, help="healthy slices per patient")
    parser.add_argument("--prior", default="default")
    parser.add_argument("--work", type=Path, default=Path("runs") / "paper-tables")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prior = load_prior(arguments.prior)
    sources = [
        Source(arguments.ct / "series" / f"{case}.nrrd", case, ranges)
        for case, ranges in CASES["validation"].items()
    ]
    made_of = StudySettings(KINDS, arguments.count, arguments.healthy, matched=False)
    study = collect_study(sources, prior.ct_grid, made_of)
    folders = {}
    for name in arguments.setups.split(","):
        settings = settings_of(SETUPS[name], arguments.samples)
        folders[name] = work_folder(arguments.work / name, settings, prior, study)
        if not arguments.table:
            run(SETUPS[name], settings, study, prior, folders[name])
    print("| task | sampler | slices | samples | plain KL, image / dataset | KLIP, image / dataset "
          "| evaluations per slice | s per slice | times ours |")  # fmt: skip
    print("|" + " --- |" * 9)
    for name, work in folders.items():
        setup = SETUPS[name]
        ours = folders.get("ours" if setup.task == SETUPS["ours"].task else "ours-deblur")
        seconds = median_seconds(ours) if ours else 0.0
        for kind in setup.kinds:
            line = row(setup, settings_of(setup, arguments.samples), study, work, kind, seconds)
            print(line or f"| {setup.task}, {kind} | {name} | nothing yet |")


def median_seconds(work: Path) -> float:
    """Of the slices in a work folder; 0 where there are none."""
    times = []
    for path in sorted(work.glob("slice-*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            times.append(float(arrays["seconds"]))
    return float(np.median(times)) if times else 0.0


def work_folder(folder: Path, settings: DetectionSettings, prior: PriorBundle, study: Study) -> Path:
    """The folder for one setup; raises SystemExit when it holds slices of another prior, study or settings."""
    state = plain_data({"prior": prior.sha256, "study": study.digest(), "settings": settings.to_dict()})
    path = folder / "state.json"
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != state:
            raise SystemExit(
                f"{folder} was made with another prior, study or settings; delete it or name another --work"
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path, (json.dumps(state, indent=1) + "\n").encode())
    return folder


if __name__ == "__main__":
    main()
