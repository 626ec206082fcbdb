"""How far a condition's data lie from what the reconstruction expects of the true slices, before any sampling.

    python -m benchmarks.mismatch.data ../shared/ct [--geometry parallel --views 24] [--case NAME] [--slices 6]

Misfit: root mean square of (data - A truth) in mm of water and over the standard deviation that the data term
assumes, of healthy slices; and what the check of consistency says.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.detection import CASES
from benchmarks.mismatch.conditions import conditions, scanned
from benchmarks.mismatch.study import fine_study
from klip_engine.evaluation.study import StudySettings
from klip_engine.io.sources import Source
from klip_engine.measured_scan import first_image, measured_scanner, measured_slices, scan_settings
from klip_engine.priors import load_prior
from klip_engine.volume import AIR_HU
from klip_engine.working_grid import images_of_hu, to_working_grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--case", default="cptac-pda-c3n-00249-chest-abdomen")
    parser.add_argument("--geometry", choices=("parallel", "fan-curved"), default="parallel")
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--slices", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    prior = load_prior("default")
    grid = prior.ct_grid
    source = Source(
        arguments.ct / "series" / f"{arguments.case}.nrrd",
        arguments.case,
        (CASES["validation"] | CASES["training"])[arguments.case],
    )
    study = fine_study(source, grid, StudySettings(("star",), 1, arguments.slices))
    step = (180.0 if arguments.geometry == "parallel" else 360.0) / arguments.views
    print(
        "| condition | misfit (mm) | over assumed | photons | first image, RMSE (HU) | said |\n" + "|---" * 6 + "|"
    )
    for condition in conditions(step):
        scan = scanned(study, condition, arguments.geometry, arguments.views, grid.pixel_mm)
        slices = measured_slices(scan, prior, trust_geometry=True, warn=lambda sentence: None)
        working = to_working_grid(first_image(scan, slices).volume, grid)
        working, scanner = measured_scanner(slices, working)
        truth = study.truth(working.geometry)
        own = np.where(working.body, truth, np.float32(AIR_HU))
        seen = scanner.operator.forward(torch.from_numpy(images_of_hu(own))).numpy()
        used = np.isfinite(scanner.variance)
        misfit = (scanner.data - seen)[used]
        over = misfit / np.sqrt(scanner.variance[used])
        first = (working.measured - truth)[working.body]
        photons = scan_settings(slices, grid.pixel_mm).scan or {}
        cells = [condition.says, *(f"{_rms(one):.2f}" for one in (misfit, over)), f"{photons['i0']:.1e}"]
        cells += [f"{_rms(first):.1f}", " ".join(slices.notices) or "-"]
        print("| " + " | ".join(cells) + " |", flush=True)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


if __name__ == "__main__":
    main()
