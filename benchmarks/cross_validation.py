"""Cross-validation over patients: what a prior knows of patients it has seen, and of those it has not.

    python benchmarks/cross_validation.py ../shared/ct [--folds 2] [--minutes 15] [--out FOLDER] --only-train
    python benchmarks/unseen_patients.py ../shared/ct --priors FOLDER
    python benchmarks/cross_validation.py ../shared/ct [--folds 2] [--minutes 15] [--out FOLDER]

The patients of the default prior's training (benchmarks/default_prior/make.py) are dealt to folds; for each fold a
prior is trained from scratch on the others. Printed per fold: mean squared denoising error relative to the best
constant-gain denoiser (1 = no knowledge of anatomy) at several noise levels, on patients seen and patients left
out (median over patients), and the detection of lesions inserted into the scans left out (image-level /
dataset-level / matched AUROC of the default score; the null distribution is measured on the patients seen and
raised by what the priors of the other folds make of patients they have not seen). A started run is continued;
--only runs one fold, so that folds can run side by side.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from default_prior.folds import deal_collection
from default_prior.make import PER_SCAN
from unseen_patients import kept_by, load, raising_levels

from klip_engine.calibration import healthy_reference, keep_reference
from klip_engine.evaluation.command import EvaluationJob, run_evaluation
from klip_engine.evaluation.run_settings import RunSettings
from klip_engine.evaluation.study import StudySettings
from klip_engine.io.sources import Source
from klip_engine.presets import choose_settings
from klip_engine.priors import PriorBundle, load_prior
from klip_engine.slices import Watch
from klip_engine.training.augmentation import NO_AUGMENTATION, augment
from klip_engine.training.dataset import load_slices

SIGMAS = (0.03, 0.1, 0.3, 1.0)
KINDS = ("star", "tumor", "nodule")
LEVELS = ("image_auroc", "dataset_auroc", "matched_auroc")
SLICES_PER_PATIENT = 8


def denoising_errors(prior: PriorBundle, sources: list[Source]) -> dict[str, list[float]]:
    """Error at every noise level by patient, on evenly chosen slices, fixed noise."""
    errors = {}
    for patient in sorted({source.patient for source in sources}):
        data = load_slices([one for one in sources if one.patient == patient], prior.grid)
        pick = np.linspace(0, len(data) - 1, min(SLICES_PER_PATIENT, len(data))).round().astype(int)
        generator = torch.Generator().manual_seed(0)
        factor = data.hu.shape[-1] // prior.grid.shape[1]
        hu, body = data.hu[pick].float(), data.body[pick]
        clean = augment(hu, body, data.grid.pixel_mm, factor, NO_AUGMENTATION, generator)
        noise = torch.randn(clean.shape, generator=generator)
        errors[patient] = []
        with torch.inference_mode():
            for sigma in SIGMAS:
                mean = torch.cat([prior.denoiser.denoise(x, sigma).mean for x in (clean + sigma * noise).split(8)])
                _, c_out = prior.denoiser.scales(torch.tensor([sigma]))
                errors[patient].append(float((((mean - clean) / c_out) ** 2).mean()))
    return errors


def train_fold(table: Path, left_out: set[str], bundle: Path, minutes: float) -> None:
    command = [
        sys.executable, "-m", "klip_engine", "train", str(table), "-o", str(bundle), "--minutes", str(minutes),
        "--bfloat16", "--resume", "--progress", "none", "--batch-size", "8", "--learning-rate", "3e-3",
    ]  # fmt: skip
    for patient in sorted(left_out):
        command += ["--exclude", patient]
    subprocess.run(command, check=True)


def detection(prior: PriorBundle, sources: list[Source], out: Path, count: int, healthy: int) -> dict[str, str]:
    """AUROC of the default score at each level, per kind, on scans left out."""
    settings = choose_settings()
    out.parent.mkdir(parents=True, exist_ok=True)
    document = run_evaluation(
        EvaluationJob(
            scans=tuple(sources),
            json_file=out,
            study=StudySettings(KINDS, count, healthy),
            run=RunSettings(settings, (settings.score.name,)),
            prior=prior,
            baselines={},
            resume=True,
        )
    )
    figures = {}
    for kind, methods in document["results"].items():
        method = methods[settings.score.name]
        figures[kind] = " / ".join(f"{method[level]['value']:.3f}" for level in LEVELS)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--healthy-slices", type=int, default=10)
    parser.add_argument("--only", type=int, help="one fold alone")
    parser.add_argument("--only-train", action="store_true", help="train the folds, measure nothing")
    parser.add_argument("--out", type=Path, default=Path("runs/cross-validation"))
    arguments = parser.parse_args()
    dealt = deal_collection(arguments.ct, arguments.out, arguments.folds, arguments.only)
    sources = dealt.sources
    for fold in dealt.chosen:
        train_fold(dealt.table, dealt.left_out[fold], arguments.out / f"fold-{fold}", arguments.minutes)
    for fold in dealt.chosen if not arguments.only_train else ():
        left_out = dealt.left_out[fold]
        bundle = arguments.out / f"fold-{fold}"
        prior = load_prior(bundle)
        seen = [one for one in sources if one.patient not in left_out]
        reference = healthy_reference(seen, prior.ct_grid, PER_SCAN, Watch())
        others = [load(kept_by(arguments.out, "default", one)) for one in range(arguments.folds) if one != fold]
        keep_reference(prior, replace(reference, unseen=raising_levels(others)))
        print(f"fold {fold}: {prior.training['images_seen']} images, {len(left_out)} patients left out", flush=True)
        errors = denoising_errors(prior, sources)
        print("| patients | " + " | ".join(f"{1000 * sigma:g} HU" for sigma in SIGMAS) + " |")
        print("|---|" + "---|" * len(SIGMAS))
        for name, group in (("seen", set(errors) - left_out), ("left out", left_out)):
            middle = np.median([errors[patient] for patient in group], axis=0)
            print(f"| {name} ({len(group)}) | " + " | ".join(f"{value:.3f}" for value in middle) + " |")
        scans = [one for one in sources if one.patient in left_out and one.path.parent.name == "series"]
        result = arguments.out / f"fold-{fold}.json"
        found = detection(prior, scans, result, arguments.count, arguments.healthy_slices)
        print(f"detection on {len(scans)} scans left out: {json.dumps(found)}", flush=True)
        with (arguments.out / "errors.csv").open("a", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([fold, patient, *values] for patient, values in errors.items())


if __name__ == "__main__":
    main()
