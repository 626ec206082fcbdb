"""Reconstruction error of DDS against filtered back-projection, from few noiseless views of unseen patients.

    python benchmarks/reconstruction.py ../shared/ct [--views 24] [--slices 8]

Root mean square error in HU inside the body, on the working grid; median over slices [min, max].
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from klip_engine.io import read_ct
from klip_engine.presets import choose_settings
from klip_engine.priors import load_prior
from klip_engine.scoring.klip import ScoreTerm
from klip_engine.slices import NetworkMeter, scanner_and_sampler, score_slices
from klip_engine.working_grid import to_working_grid

CASES = {
    "lidc-idri-0314 (healthy-looking slices)": ("series/lidc-idri-0314-chest.nrrd", (0, 15)),
    "cptac-pda-c3n-00249": ("series/cptac-pda-c3n-00249-chest-abdomen.nrrd", (23, 101)),
}


def rmse(image: np.ndarray, truth: np.ndarray, body: np.ndarray) -> np.ndarray:
    return np.array([np.sqrt(np.mean((a - b)[m] ** 2)) for a, b, m in zip(image, truth, body, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--prior", default="default")
    arguments = parser.parse_args()
    prior = load_prior(arguments.prior)
    print("| case | slices | FBP (HU) | DDS (HU) | ratio |\n|---|---|---|---|---|")
    for name, (file, (first, last)) in CASES.items():
        working = to_working_grid(read_ct(arguments.ct / file).volume, prior.ct_grid)
        pick = np.linspace(first, last, arguments.slices).round().astype(int)
        truth, body = working.hu[pick].clip(-1000, 1000), working.body[pick]
        images = torch.from_numpy(truth / 1000)[:, None]
        settings = choose_settings("sparse-24", views=arguments.views)
        scanner, sampler = scanner_and_sampler(prior, settings)
        measured = scanner.operator.forward(images)
        fbp = 1000 * scanner.operator.pseudo_inverse(measured)[:, 0].numpy()
        scored = score_slices(
            images, scanner, NetworkMeter(prior.denoiser), sampler, [ScoreTerm()],
            samples=4, seed=0, batch_slices=4, device="cpu",
        )  # fmt: skip
        errors = [rmse(image, truth, body) for image in (fbp, 1000 * scored.reconstruction[:, 0].numpy())]
        cells = [f"{np.median(e):.1f} [{e.min():.1f}, {e.max():.1f}]" for e in errors]
        ratio = np.median(errors[1] / errors[0])
        print(f"| {name} | {len(pick)} | {cells[0]} | {cells[1]} | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    main()
