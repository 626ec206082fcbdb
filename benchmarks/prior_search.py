"""Which network, noise levels and learning rate suit the default prior: each candidate trained for the same work.

    python benchmarks/prior_search.py ../shared/ct [--minutes 5] [--only base,fold4] [--out runs/prior-search]

Data, split and validation are those of the default prior (benchmarks/default_prior/make.py). Every candidate gets
the images that fit into `--minutes` of one thread's processor time at its own speed. Speeds are measured
beforehand, all candidates in turn and the fastest of several steps counting, because on a shared machine the same
step takes longer whenever others work beside it; a run itself is then the same whatever else the machine does.

Printed: mean squared denoising error relative to the best constant-gain denoiser at several noise levels on unseen
patients, and "error": the geometric mean of these from 10 to 1000 HU relative to the seeds of `base`. A started
search is continued; `OUT/<minutes>/<candidate>.json` holds each result.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from default_prior.make import write_tables

from klip_engine.files import write_file
from klip_engine.io.sources import read_manifest
from klip_engine.priors.base import NetworkDenoiser
from klip_engine.priors.network import NetworkConfig
from klip_engine.training.augmentation import augment
from klip_engine.training.dataset import SliceSet, load_slices
from klip_engine.training.objectives import build_objective
from klip_engine.training.optimisers import Optimiser
from klip_engine.training.trainer import TrainingReport, train
from klip_engine.training.training_settings import TrainingSettings
from klip_engine.working_grid import WorkingGrid

BASE = TrainingSettings(
    images=8,
    batch_size=8,
    optimiser="adamw",
    learning_rate=4e-4,
    bfloat16=True,
    warm_up_steps=40,
    checkpoint_minutes=20,
)
"""The default before Muon, but for the batch and the warm-up, 16 and 200 steps there: a short run has few steps."""
ROUNDS = 4
JUDGED = ("0.01", "0.03", "0.1", "0.3", "1")


@dataclass(frozen=True)
class Candidate:
    """What differs from `BASE`."""

    what: str
    network: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> TrainingSettings:
        return replace(BASE, network=NetworkConfig(**self.network), **self.training)

    @property
    def work(self) -> str:
        """What decides on the speed."""
        chosen = self.settings
        return json.dumps([self.network, chosen.batch_size, chosen.bfloat16, chosen.optimiser])


def three_levels(*channels: int, blocks: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "channels": channels,
        "num_res_blocks": (blocks,) * len(channels),
        "attention_levels": (False,) * len(channels),
    } | changes


CANDIDATES = {
    "base": Candidate("32-64-96-128 on pixels folded 2 x 2; noise levels log-normal (-1.5, 1.5)"),
    "base-seed1": Candidate("the same, another seed", training={"seed": 1}),
    "fold4": Candidate("64-96-128 on pixels folded 4 x 4", three_levels(64, 96, 128, space_to_depth=4)),
    "muon": Candidate("Muon instead of AdamW", training={"optimiser": "muon"}),
    "muon-rate-10": Candidate("Muon, learning rate 1e-3", training={"optimiser": "muon", "learning_rate": 1e-3}),
    "muon-rate-30": Candidate("Muon, learning rate 3e-3", training={"optimiser": "muon", "learning_rate": 3e-3}),
    "muon-noise-wide": Candidate(
        "Muon, learning rate 1e-3, noise levels (-2.0, 1.8): as the sampler meets them",
        training={"optimiser": "muon", "learning_rate": 1e-3, "sigma_log_mean": -2.0, "sigma_log_std": 1.8},
    ),
    "fold4-muon": Candidate(
        "64-96-128, folded 4 x 4, Muon with learning rate 1e-3",
        three_levels(64, 96, 128, space_to_depth=4),
        {"optimiser": "muon", "learning_rate": 1e-3},
    ),
    "rate-10": Candidate("learning rate 1e-3", training={"learning_rate": 1e-3}),
    "noise-low": Candidate("noise levels (-2.5, 1.5): lower", training={"sigma_log_mean": -2.5}),
    "narrow-top": Candidate("16-48-96-128", {"channels": (16, 48, 96, 128)}),
    "batch-16": Candidate("batches of 16", training={"batch_size": 16}),
    "noise-wide": Candidate(
        "noise levels (-2.0, 1.8): as the sampler meets them",
        training={"sigma_log_mean": -2.0, "sigma_log_std": 1.8},
    ),
    "attention": Candidate("attention at the lowest level", {"attention_levels": (False, False, False, True)}),
    "fold4-wide": Candidate("96-128-160, folded 4 x 4", three_levels(96, 128, 160, space_to_depth=4)),
    "deep-low": Candidate("2 residual blocks at the two lowest levels", {"num_res_blocks": (1, 1, 2, 2)}),
    "beta-1": Candidate("beta-NLL with beta 1: plain squared error for the mean", training={"beta": 1.0}),
    "beta-0": Candidate("beta-NLL with beta 0: plain likelihood", training={"beta": 0.0}),
    "groups-8": Candidate("group norm of 8 groups", {"norm_num_groups": 8}),
    "fold4-deep": Candidate(
        "64-96-128, 2 residual blocks, folded 4 x 4", three_levels(64, 96, 128, blocks=2, space_to_depth=4)
    ),
    "float32": Candidate("no bfloat16", training={"bfloat16": False}),
    "fold1": Candidate("16-32-64-96-128, pixels not folded", three_levels(16, 32, 64, 96, 128, space_to_depth=1)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--only", help=f"some of: {', '.join(CANDIDATES)}")
    parser.add_argument("--out", type=Path, default=Path("runs/prior-search"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = arguments.only.split(",") if arguments.only else list(CANDIDATES)
    grid = WorkingGrid()
    data, validation = read_slices(arguments.ct, grid, arguments.out)
    speeds = measure_speeds(data, grid, arguments.out / "speeds.json")
    folder = arguments.out / f"{arguments.minutes:g}"
    for name in names:
        if not (folder / f"{name}.json").exists():
            candidate = CANDIDATES[name]
            speed = speeds[candidate.work]
            result = measure(candidate, arguments.minutes, speed, data, validation, folder / name)
            write_file(folder / f"{name}.json", json.dumps(result, indent=1).encode())
            shutil.rmtree(folder / name)  # the checkpoint has served
            print(table(folder), flush=True)
    print(table(folder))


def read_slices(ct: Path, grid: WorkingGrid, out: Path) -> tuple[SliceSet, SliceSet]:
    """Training and validation slices, kept in `out`: reading the scans takes minutes."""
    sets = []
    for path in write_tables(ct, out / "tables"):
        kept = path.with_suffix(".pt")
        if not kept.exists():
            read = load_slices(read_manifest(path), grid)
            partial = kept.with_suffix(".partial")
            torch.save({"hu": read.hu, "body": read.body, "patients": list(read.patients)}, partial)
            partial.replace(kept)
        held = torch.load(kept, weights_only=True)
        factor = held["hu"].shape[-1] // grid.shape[1]
        sets.append(SliceSet(held["hu"], held["body"], tuple(held["patients"]), grid.refined(factor)))
    return sets[0], sets[1]


def measure_speeds(data: SliceSet, grid: WorkingGrid, path: Path) -> dict[str, dict[str, float]]:
    """By `Candidate.work`: processor seconds per image of a training step and a float32 evaluation, parameters."""
    held: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    trials = {one.work: Trial(one.settings, grid) for one in CANDIDATES.values() if one.work not in held}
    spent: dict[str, list[tuple[float, float]]] = {work: [] for work in trials}
    for _ in range(ROUNDS):
        for work, trial in trials.items():
            spent[work].append((cpu_seconds(lambda: trial.step(data)), cpu_seconds(trial.evaluate)))  # noqa: B023
    for work, trial in trials.items():
        step, evaluation = (min(times) for times in zip(*spent[work], strict=True))
        held[work] = {
            "training_s": step / trial.settings.batch_size,
            "evaluation_s": evaluation / trial.settings.batch_size,
            "parameters": sum(weights.numel() for weights in trial.denoiser.parameters()),
        }
    if trials:
        write_file(path, json.dumps(held, indent=1).encode())
    return held


class Trial:
    """One candidate, for as long as its speed is measured."""

    def __init__(self, settings: TrainingSettings, grid: WorkingGrid) -> None:
        self.settings = settings
        self.denoiser = settings.fresh_denoiser(grid.shape)
        self.objective = build_objective(self.denoiser, settings.objective)
        self.optimiser = Optimiser(settings.optimiser, self.denoiser, settings.learning_rate, settings.weight_decay)
        self.generator = torch.Generator().manual_seed(0)
        self.noisy = torch.randn(settings.batch_size, 1, *grid.shape, generator=self.generator)

    def step(self, data: SliceSet) -> None:
        pick = torch.randint(len(data), (self.settings.batch_size,), generator=self.generator)
        hu, body = data.hu[pick].float(), data.body[pick]
        factor = hu.shape[-1] // self.noisy.shape[-1]
        clean = augment(hu, body, data.grid.pixel_mm, factor, self.settings.augmentation, self.generator)
        self.denoiser.zero_grad(set_to_none=True)
        self.objective(*self.objective.batch(clean, self.generator)).backward()
        self.optimiser.step(self.settings.learning_rate)

    def evaluate(self) -> None:
        with torch.inference_mode():
            self.denoiser(self.noisy, torch.full((len(self.noisy),), 0.1))


def cpu_seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(
    candidate: Candidate,
    minutes: float,
    speed: dict[str, float],
    data: SliceSet,
    validation: SliceSet,
    folder: Path,
) -> dict[str, Any]:
    """Train with the images that the budget holds; the last validation is the result."""
    batch = candidate.settings.batch_size
    images = batch * max(1, round(60 * minutes / speed["training_s"] / batch))
    last: list[TrainingReport] = []

    def report(now: TrainingReport, _: NetworkDenoiser) -> None:
        last[:] = [now]
        if now.steps % 50 == 0:
            print(f"{folder.name}: {now.images} of {images} images, loss {now.loss:.3f}", flush=True)

    settings = replace(candidate.settings, images=images)
    train(data, WorkingGrid(), folder, settings, validation=validation, resume=True, report=report)
    return {
        "what": candidate.what,
        "settings": asdict(settings),
        "images": last[0].images,
        "errors": last[0].validation,
    } | speed


def table(folder: Path) -> str:
    """Markdown, in the order of CANDIDATES."""
    results = {
        name: json.loads(path.read_text()) for name in CANDIDATES if (path := folder / f"{name}.json").exists()
    }
    seeds = [judged(result) for name, result in results.items() if name.startswith("base")]
    level = sum(seeds) / len(seeds) if seeds else math.nan
    columns = list(next(iter(results.values()))["errors"]) if results else []
    lines = [
        "| candidate | parameters | ms per evaluation | images | "
        + " | ".join(f"{1000 * float(sigma):g} HU" for sigma in columns)
        + " | error |",
        "|---" * (5 + len(columns)) + "|",
    ]
    for name, result in results.items():
        errors = [*result["errors"].values(), math.exp(judged(result) - level)]
        lines.append(
            f"| {name}: {result['what']} | {result['parameters'] / 1e6:.2f} M | "
            f"{1000 * result['evaluation_s']:.1f} | {result['images']:,} | "
            + " | ".join(f"{value:.3f}" for value in errors)
            + " |"
        )
    return "\n".join(lines)


def judged(result: dict[str, Any]) -> float:
    """Mean log error over the noise levels that the score uses most."""
    return sum(math.log(result["errors"][sigma]) for sigma in JUDGED) / len(JUDGED)


if __name__ == "__main__":
    main()
