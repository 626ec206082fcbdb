"""How detection changes when the scanner differs from what the reconstruction believes of it.

    python -m benchmarks.mismatch ../shared/ct -o FOLDER [--geometry parallel --views 24] [--conditions NAME,...]
                                  [--case cptac-pda-c3n-00249-chest-abdomen] [--kinds star,tumor,nodule,metal]

Healthy slices of a patient the prior has not seen, and slices with lesions inserted on the source's voxels (those
that `klip-engine evaluate` inserts), are projected under each condition and detected as `klip-engine detect SCAN`
does. Finished batches are kept in FOLDER, and a second call goes on where the first was stopped; mismatch.json and
mismatch.md there hold the figures of all conditions that are done so far.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.detection import CASES
from benchmarks.mismatch.conditions import Condition, conditions, scanned
from benchmarks.mismatch.detecting import detected, sample_scan
from benchmarks.mismatch.figures import Measured, figures, measured
from benchmarks.mismatch.study import fine_study
from benchmarks.mismatch.table import table
from klip_engine.console import ProgressStyle, make_reporter
from klip_engine.detection import NOTICE
from klip_engine.evaluation.study import HEALTHY, StudySettings
from klip_engine.files import write_file
from klip_engine.io.sources import Source
from klip_engine.priors import load_prior
from klip_engine.slices import Watch
from klip_engine.version import __version__

KINDS = ("star", "tumor", "nodule", "metal")


def main() -> None:
    arguments = _arguments()
    torch.set_grad_enabled(False)
    cases = CASES["validation"] | CASES["training"]
    source = Source(arguments.ct / "series" / f"{arguments.case}.nrrd", arguments.case, cases[arguments.case])
    prior = load_prior(arguments.prior)
    settings = StudySettings(KINDS, arguments.count, arguments.healthy)
    study = fine_study(source, prior.ct_grid, settings)
    wanted = (HEALTHY, *arguments.kinds.split(","))
    count = 1 + max(case.number for case in study.cases if case.kind in wanted)
    step = (180.0 if arguments.geometry == "parallel" else 360.0) / arguments.views
    chosen = [
        one for one in conditions(step) if not arguments.conditions or one.name in arguments.conditions.split(",")
    ]
    folder = arguments.out / f"{arguments.case}-{arguments.geometry}-{arguments.views}"
    done: dict[str, Measured] = {}
    reporter = make_reporter(ProgressStyle.RICH)
    watch = Watch(reporter.progress)
    try:
        for condition in chosen:
            scan = scanned(study, condition, arguments.geometry, arguments.views, prior.ct_grid.pixel_mm)
            sampled = sample_scan(scan, prior, folder / condition.name, watch, count)
            if arguments.batches_only:
                continue
            done[condition.name] = measured(study, detected(sampled, prior, watch))
            _write(folder, chosen, done, {"engine": __version__, "prior": prior.identity()} | vars(arguments))
    finally:
        reporter.close()
    if done:
        print((folder / "mismatch.md").read_text(encoding="utf-8"))


def _write(folder: Path, chosen: list[Condition], done: dict[str, Measured], settings: dict[str, Any]) -> None:
    """The figures of what is done so far."""
    rows = {
        one.name: (one.says, figures(done[one.name], None if one.matched else done.get(one.reference)))
        for one in chosen
        if one.name in done
    }
    plain = {name: {"says": says} | found for name, (says, found) in rows.items()}
    document = {"schema": "klip-mismatch/1", "notice": NOTICE, "settings": settings, "conditions": plain}
    write_file(folder / "mismatch.json", (json.dumps(document, indent=1, default=str) + "\n").encode())
    write_file(folder / "mismatch.md", f"{NOTICE}\n\n{table(rows)}\n".encode())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs") / "mismatch")
    parser.add_argument("--case", default="cptac-pda-c3n-00249-chest-abdomen")
    parser.add_argument("--geometry", choices=("parallel", "fan-curved"), default="parallel")
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--conditions", default="", help="names; by default all")
    parser.add_argument("--kinds", default=",".join(KINDS), help="up to which kind of lesion, in the usual order")
    parser.add_argument(
        "--batches-only", action="store_true", help="leave the null and the figures to a later call"
    )
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--healthy", type=int, default=24)
    parser.add_argument("--prior", default="default")
    return parser.parse_args()


if __name__ == "__main__":
    main()
