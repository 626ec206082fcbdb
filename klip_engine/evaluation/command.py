"""One evaluation from scans to report: what `klip-engine evaluate` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from klip_engine.calibration import healthy_reference
from klip_engine.errors import Cancelled, UsageError, resource_errors
from klip_engine.evaluation.baselines import BASELINES
from klip_engine.evaluation.baselines.base import Baseline
from klip_engine.evaluation.document import Evaluation, evaluation_document
from klip_engine.evaluation.report import require_matplotlib, write_report
from klip_engine.evaluation.run import run_study
from klip_engine.evaluation.run_settings import RunSettings
from klip_engine.evaluation.statistics import Bootstrap
from klip_engine.evaluation.study import StudySettings, collect_study
from klip_engine.evaluation.work import check_work
from klip_engine.files import writable_folder
from klip_engine.io.sources import Source
from klip_engine.pipeline import pick_device
from klip_engine.priors import PriorBundle, load_prior
from klip_engine.slices import Watch, scanner_and_sampler


@dataclass(frozen=True)
class EvaluationJob:
    """Scans in, figures out.

    json_file: the result; out: folder of table and pictures, by default `NAME-report` beside it (`NAME-work` there
    holds what a resumed run needs); reference: healthy scans of other patients that the methods of comparison learn
    from, by default the slices kept beside the prior, or else drawn from it.
    """

    scans: tuple[Source, ...]
    json_file: Path
    study: StudySettings
    run: RunSettings
    prior: str | Path | PriorBundle = "default"
    out: Path | None = None
    reference: tuple[Source, ...] = ()
    baselines: Mapping[str, Baseline] = field(default_factory=lambda: dict(BASELINES))
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    resume: bool = False

    def __post_init__(self) -> None:
        if not self.scans:
            raise UsageError("nothing to evaluate on: name volume files, DICOM folders or a table (.csv)")
        if self.json_file.is_dir() or self.json_file.suffix.lower() != ".json":
            raise UsageError(f"--json names the file to write, such as evaluation.json, not {self.json_file}")
        if self.report_folder.exists() and not self.report_folder.is_dir():
            raise UsageError(f"{self.report_folder} is a file; name another folder for table and pictures")
        common = {scan.patient for scan in self.scans} & {scan.patient for scan in self.reference}
        if common:
            raise UsageError(f"patients in both the evaluation and the reference: {', '.join(sorted(common))}")
        clash = set(self.run.scores) & set(self.baselines)
        if clash:
            raise UsageError(f"a score and a method of comparison share the name {', '.join(sorted(clash))}")

    @property
    def report_folder(self) -> Path:
        """Where table and pictures go."""
        return self.out or self.json_file.with_name(f"{self.json_file.stem}-report")

    @property
    def work_folder(self) -> Path:
        """Where finished batches are kept."""
        return self.json_file.with_name(f"{self.json_file.stem}-work")


def choose_baselines(text: str) -> dict[str, Baseline]:
    """Methods of comparison from "all", "none" or names with commas; raises UsageError naming the choices."""
    if text == "all":
        return dict(BASELINES)
    names = [] if text == "none" else split_names(text)
    for name in names:
        if name not in BASELINES:
            raise UsageError(
                f"no method of comparison is called '{name}'; there are: {', '.join(BASELINES)}, all, none"
            )
    return {name: BASELINES[name] for name in names}


def split_names(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def run_evaluation(
    job: EvaluationJob,
    progress: Callable[[str, int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Evaluate, write the report and the JSON file (last), and return its content.

    Raises InputError for a scan that cannot be used, UsageError for what does not fit together, Cancelled when the
    caller stops it: what was finished is kept for a resumed run.
    """
    require_matplotlib()
    start = time.perf_counter()
    watch = Watch(progress, cancelled)
    check_work(job.work_folder, job.resume)
    writable_folder(job.json_file.parent)
    writable_folder(job.report_folder.parent)
    with resource_errors(), _kept_when_cancelled(job.work_folder):
        device = pick_device(job.run.detection.device)
        bundle = job.prior.on(device) if isinstance(job.prior, PriorBundle) else load_prior(job.prior, device)
        scanner_and_sampler(bundle, job.run.detection)  # wrong settings are said before anything long begins
        study = collect_study(
            job.scans,
            bundle.ct_grid,
            job.study,
            progress=lambda done, total: watch.tell("inserting lesions", done, total),
            check=watch.check,
        )
        reference = None
        if job.reference and job.baselines:
            per_scan = max(1, round(job.run.reference_slices / len(job.reference)))
            reference = healthy_reference(job.reference, bundle.ct_grid, per_scan, watch, runs=False)
        outcome = run_study(
            study,
            bundle,
            job.run,
            job.baselines,
            job.work_folder,
            device=device,
            reference=reference,
            resume=job.resume,
            watch=watch,
            facts={"study": asdict(job.study)},
        )
        watch.tell("writing the report", 0, 1)
        evaluation = Evaluation(
            study,
            outcome,
            bundle.identity(),
            _settings(job, device),
            job.bootstrap,
            round(time.perf_counter() - start, 3),
        )
        document = evaluation_document(evaluation)
        write_report(evaluation, document, job.report_folder, job.json_file)
        watch.tell("writing the report", 1, 1)
    return document


@contextmanager
def _kept_when_cancelled(work: Path) -> Iterator[None]:
    """Say where a cancelled run left its work."""
    try:
        yield
    except Cancelled as error:
        if not work.is_dir():
            raise
        raise Cancelled(f"stopped on request; {work} keeps what was finished, --resume continues it") from error


def _settings(job: EvaluationJob, device: str) -> dict[str, Any]:
    return {
        "lesions": list(job.study.kinds),
        "count": job.study.count,
        "healthy_slices": job.study.healthy_slices,
        "seed": job.study.seed,
        "matched": job.study.matched,
        "detection": job.run.detection.to_dict() | {"device": device},
        "scores": list(job.run.scores),
        "baselines": list(job.baselines),
        "reference": [scan.path.name for scan in job.reference] or "kept beside the prior, or drawn from it",
        "reference_slices": job.run.reference_slices,
        "bootstrap": asdict(job.bootstrap),
    }
