"""Detection of inserted lesions on unseen patients, and the rate of false alarms on their healthy slices.

    python benchmarks/detection.py ../shared/ct [--preset default] [--count 10] [--cases validation|training]

Per lesion kind and score: image-level AUROC (mean over images) / dataset-level AUROC, as docs/how-it-works.md and
arXiv 2605.31596 define them, on sliding blocks. Scores and windows were chosen on stars in training patients
(`--cases training`).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from klip_engine.calibration import known_null
from klip_engine.errors import InputError
from klip_engine.evaluation import insert, lesion_kind, lesion_mask
from klip_engine.io import read_ct
from klip_engine.priors import PriorBundle, load_prior
from klip_engine.scoring.metrics import auroc
from klip_engine.scoring.score_map import block_maps
from klip_engine.settings import SCORES, DetectionSettings, choose_settings
from klip_engine.slices import NetworkMeter, scanner_and_sampler, score_slices
from klip_engine.volume import to_working_grid

CASES = {
    "validation": {
        "cptac-pda-c3n-00249-chest-abdomen": [(23, 101)],
        "lidc-idri-0314-chest": [(0, 15)],
    },
    "training": {
        "acrin-flt-breast-001-abdomen": [(0, 98)],
        "tcga-coad-ay-4070a-abdomen-pelvis": [(0, 28), (46, 86)],
        "cptac-luad-c3n-00704-body": [(20, 102), (114, 157), (166, 178)],
    },
}
KINDS = ("star", "nodule", "tumor")


@dataclass
class Slice:
    kind: str
    hu: np.ndarray
    body: np.ndarray
    lesion: np.ndarray | None


def collect(ct: Path, cases: dict[str, list[tuple[int, int]]], prior: PriorBundle, count: int) -> list[Slice]:
    """Healthy slices, and for every kind `count` slices per case with a lesion in their middle."""
    slices = []
    for case, ranges in cases.items():
        volume = read_ct(ct / "series" / f"{case}.nrrd").volume
        working = to_working_grid(volume, prior.grid)
        healthy = [k for k in range(len(working.hu)) if any(a < k < b for a, b in ranges)]
        for k in np.array(healthy)[np.linspace(0, len(healthy) - 1, 24).round().astype(int)]:
            slices.append(Slice("healthy", working.hu[k], working.body[k], None))
        rng = np.random.default_rng(2605)
        allowed = np.zeros(volume.hu.shape, bool)
        allowed[healthy] = True
        for kind in KINDS:
            tissue = lesion_kind(kind).tissue(volume) & allowed
            for _ in range(count):
                try:
                    altered = insert(volume, kind, rng, tissue=tissue)
                except InputError:
                    break  # this case has no place for it
                after = to_working_grid(altered.volume, prior.grid)
                mask = lesion_mask(altered.record, after.geometry)
                k = int(mask.sum(axis=(1, 2)).argmax())
                slices.append(Slice(kind, after.hu[k], after.body[k], mask[k]))
    return slices


def score(slices: list[Slice], prior: PriorBundle, settings: DetectionSettings) -> dict[str, list[np.ndarray]]:
    """Score maps of every slice by the name of the score, all from the same posterior samples."""
    scanner, sampler = scanner_and_sampler(prior, settings)
    images = torch.from_numpy(np.stack([s.hu for s in slices]) / 1000).clamp(-1, 1)[:, None]
    scored = score_slices(
        images.float(), scanner, NetworkMeter(prior.denoiser), sampler, [s.term for s in SCORES.values()],
        samples=settings.sampling.samples, seed=settings.seed, batch_slices=settings.batch_slices, device="cpu",
    )  # fmt: skip
    return {
        name: list(block_maps(scored.density[:, number], one.blocks(prior.grid.pixel_mm)[:1])[0])
        for number, (name, one) in enumerate(SCORES.items())
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--cases", choices=list(CASES), default="validation")
    parser.add_argument("--prior", default="default")
    arguments = parser.parse_args()
    prior = load_prior(arguments.prior)
    settings = choose_settings(arguments.preset)
    slices = collect(arguments.ct, CASES[arguments.cases], prior, arguments.count)
    counts = {kind: sum(s.kind == kind for s in slices) for kind in ("healthy", *KINDS)}
    print(f"slices: {counts}")
    maps = score(slices, prior, settings)
    print("| score | " + " | ".join(KINDS) + " |\n|---|" + "---|" * len(KINDS))
    for name, all_maps in maps.items():
        cells = []
        pairs = list(zip(slices, all_maps, strict=True))
        usual = [m[s.body].max() for s, m in pairs if s.kind == "healthy"]
        width = SCORES[name].blocks(prior.grid.pixel_mm)[0]
        for kind in KINDS:
            image, top = [], []
            for s, m in pairs:
                if s.kind == kind and s.lesion is not None:
                    touched = ndimage.maximum_filter(s.lesion, width) & s.body
                    image.append(auroc(m[touched], m[s.body & ~touched]))
                    top.append(m[s.body].max())
            cells.append(f"{np.mean(image):.3f} / {auroc(np.array(top), np.array(usual)):.3f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    report_false_alarms(slices, maps[settings.score.name], known_null(prior, settings))


def report_false_alarms(slices: list[Slice], maps: list[np.ndarray], null: object) -> None:
    """Share of healthy slices with anything above the threshold, and of lesions touched, for several rates."""
    if null is None:
        print("no null distribution is known for these settings")
        return
    print("| accepted rate | healthy slices marked | " + " | ".join(f"{kind} found" for kind in KINDS) + " |")
    print("|---|---|" + "---|" * len(KINDS))
    for rate in (0.01, 0.05, 0.1, 0.2):
        threshold = null.threshold(rate) * null.scales[0]  # type: ignore[attr-defined]
        marked: dict[str, list[bool]] = {kind: [] for kind in ("healthy", *KINDS)}
        for s, m in zip(slices, maps, strict=True):
            hit = (m > threshold) & s.body
            marked[s.kind].append(bool((hit if s.lesion is None else hit & s.lesion).any()))
        shares = [f"{np.mean(values):.2f}" if values else "-" for values in marked.values()]
        print(f"| {rate:g} | " + " | ".join(shares) + " |")


if __name__ == "__main__":
    main()
