"""Detection of inserted lesions on unseen patients, and the rate of false alarms on their healthy slices.

    python benchmarks/detection.py ../shared/ct [--preset default] [--count 10] [--cases validation|training]

The same as `klip-engine evaluate` on the cases below, into runs/detection-CASES-PRESET.json and a report beside it.
What was chosen on which patients: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from klip_engine.console import ProgressStyle, make_reporter
from klip_engine.evaluation.command import EvaluationJob, choose_baselines, run_evaluation, split_names
from klip_engine.evaluation.run_settings import RunSettings
from klip_engine.evaluation.study import StudySettings
from klip_engine.io.sources import Source
from klip_engine.presets import choose_settings
from klip_engine.settings import all_scores

CASES = {
    "validation": {
        "cptac-pda-c3n-00249-chest-abdomen": ((23, 101),),
        "lidc-idri-0314-chest": ((0, 15),),
    },
    "training": {
        "acrin-flt-breast-001-abdomen": ((0, 98),),
        "tcga-coad-ay-4070a-abdomen-pelvis": ((0, 28), (46, 86)),
        "cptac-luad-c3n-00704-body": ((20, 102), (114, 157), (166, 178)),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--cases", choices=list(CASES), default="validation")
    parser.add_argument("--prior", default="default")
    parser.add_argument("--lesions", default="tumor,nodule,star,effusion,metal")
    parser.add_argument("--baselines", default="none")
    parser.add_argument("--scores", default="", help="names with commas; default: all")
    parser.add_argument("--matched", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--reference-slices", type=int, default=32)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    settings = choose_settings(arguments.preset)
    scores = split_names(arguments.scores) or tuple(score.name for score in all_scores(settings))
    job = EvaluationJob(
        scans=tuple(
            Source(arguments.ct / "series" / f"{case}.nrrd", case, ranges)
            for case, ranges in CASES[arguments.cases].items()
        ),
        json_file=arguments.json or Path("runs") / f"detection-{arguments.cases}-{arguments.preset}.json",
        study=StudySettings(split_names(arguments.lesions), arguments.count, matched=arguments.matched),
        run=RunSettings(settings, scores, arguments.reference_slices),
        prior=arguments.prior,
        baselines=choose_baselines(arguments.baselines),
        resume=arguments.resume,
    )
    reporter = make_reporter(ProgressStyle.RICH)
    try:
        run_evaluation(job, reporter.progress)
    finally:
        reporter.close()
    print((job.report_folder / "evaluation.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
