"""Altered slices against the same slices before the lesion: closed forms, and from scans to figures."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from klip_engine.errors import Cancelled, UsageError
from klip_engine.evaluation.baselines.base import Evidence, Scores
from klip_engine.evaluation.command import EvaluationJob, run_evaluation
from klip_engine.evaluation.measures import SliceResult, kind_figures
from klip_engine.evaluation.run_settings import RunSettings
from klip_engine.evaluation.statistics import Bootstrap
from klip_engine.evaluation.study import HEALTHY, UNALTERED, StudySettings, collect_study
from klip_engine.io import read_ct
from klip_engine.io.sources import Source
from klip_engine.settings import DetectionSettings, SamplingSettings
from klip_engine.working_grid import to_working_grid
from tests.conftest import run_cli
from tests.evaluation.conftest import GRID

pytestmark = pytest.mark.usefixtures("quick_null")
STUDY = StudySettings(("star", "nodule"), count=3, healthy_slices=1, seed=4)
"""The one healthy slice of each scan is its lowest, which shows the liver; nodules lie in the lungs."""
MATCHED = ("matched_auroc", "raised")


def scored(*scores: float) -> list[SliceResult]:
    return [SliceResult(score, 0.5, None, (), -np.inf) for score in scores]


def figures(healthy, after, before, patients=None) -> dict:
    patients = patients or ["one"] * len(after)
    return kind_figures(
        scored(*healthy), scored(*after), ["one"] * len(healthy), patients, Bootstrap(100), scored(*before)
    )


def test_a_method_that_measures_the_region_alone_is_perfect_on_all_slices_and_nothing_on_the_same_slices():
    lung, liver = 1.6, 0.2
    found = figures([liver] * 5, [lung] * 4, [lung] * 4)
    assert found["dataset_auroc"]["value"] == 1.0
    for name in MATCHED:
        assert (found[name]["value"], found[name]["low"], found[name]["high"]) == (0.5, 0.5, 0.5)


def test_a_method_that_sees_the_lesion_in_the_dullest_region_is_perfect_on_the_same_slices():
    found = figures([5.0] * 5, [2.0, 2.5, 3.0], [1.0, 1.2, 1.1])
    assert found["dataset_auroc"]["value"] == 0.0
    for name in MATCHED:
        assert (found[name]["value"], found[name]["low"], found[name]["high"]) == (1.0, 1.0, 1.0)


def test_matched_compares_all_with_all_and_raised_each_with_itself():
    found = figures([0.0], [1.0, 3.0, 4.0], [0.0, 2.0, 4.0])
    # pairs won: 1 of 3, 2 of 3, 2 of 3 and a tie
    assert found["matched_auroc"]["value"] == pytest.approx(5.5 / 9)
    assert found["raised"]["value"] == pytest.approx(2.5 / 3)


def test_an_original_counts_once_per_altered_slice():
    rng = np.random.default_rng(1)
    after, before = rng.integers(0, 6, 30).astype(float), rng.integers(0, 6, 10).astype(float).repeat(3)
    found = figures([0.0], after, before)
    expected = mannwhitneyu(after, before).statistic / (30 * 30)
    assert found["matched_auroc"]["value"] == pytest.approx(expected)


def test_a_slice_is_resampled_together_with_its_original():
    # patients at levels far apart: 3 of 4 pairs are won, all of them where one patient is drawn twice
    found = figures([0.0], [1.0, 101.0], [0.0, 100.0], patients=["one", "two"])
    assert (found["matched_auroc"]["low"], found["matched_auroc"]["value"]) == (0.75, 0.75)
    assert found["matched_auroc"]["high"] == 1.0
    assert (found["raised"]["low"], found["raised"]["high"]) == (1.0, 1.0)


def test_every_altered_slice_has_its_original_and_none_is_there_twice(scans):
    made = replace(STUDY, healthy_slices=7)
    study, without = collect_study(scans, GRID, made), collect_study(scans, GRID, replace(made, matched=False))
    working = {scan.path.name: to_working_grid(read_ct(scan.path).volume, GRID) for scan in scans}
    altered = [case for case in study.cases if case.lesion is not None]
    for case in altered:
        original = study.cases[case.original]
        assert original.kind in (HEALTHY, UNALTERED)
        assert (original.file, original.index, original.lesion) == (case.file, case.index, None)
        np.testing.assert_array_equal(study.hu[case.original], working[case.file].hu[case.index])
        np.testing.assert_array_equal(study.body[case.original], study.body[case.number])
    assert {study.cases[case.original].kind for case in altered} == {HEALTHY, UNALTERED}
    places = [(case.file, case.index) for case in study.cases if case.lesion is None]
    assert len(set(places)) == len(places)
    assert [case.number for case in study.cases] == list(range(len(study)))

    rest = slice(0, len(without))
    assert all(case.original is None for case in without.cases)
    assert {case.kind for case in study.cases[len(without) :]} == {UNALTERED}
    assert tuple(replace(case, original=None) for case in study.cases[rest]) == without.cases
    np.testing.assert_array_equal(study.hu[rest], without.hu)
    assert study.digest() != without.digest()


def test_unaltered_slices_are_in_batches_of_their_own(scans):
    study = collect_study(scans, GRID, STUDY)
    for size in (1, 4, 1000):
        batches = study.batches(size)
        assert [number for batch in batches for number in batch] == list(range(len(study)))
        for batch in batches:
            assert 0 < len(batch) <= size
            assert len({study.cases[number].kind == UNALTERED for number in batch}) == 1
    assert [len(batch) for batch in study.batches(1000)] == [14, len(study) - 14]


@dataclass(frozen=True)
class ShowsLung:
    """Says of a slice that it shows lung, and nothing else."""

    name: str = "shows lung"
    source: str = "none"

    def fitted(self, denoiser, healthy: Evidence, seed: int) -> ShowsLung:
        return self

    def score(self, denoiser, evidence: Evidence, seed: int) -> Scores:
        lung = (evidence.measurement.data[:, 0] < -0.5) & evidence.body
        return Scores(lung.float(), (lung.sum(dim=(1, 2)) > 200).float())


@dataclass(frozen=True)
class Brightest:
    """The highest value in the body."""

    name: str = "brightest"
    source: str = "none"

    def fitted(self, denoiser, healthy: Evidence, seed: int) -> Brightest:
        return self

    def score(self, denoiser, evidence: Evidence, seed: int) -> Scores:
        maps = torch.where(evidence.body, evidence.measurement.data[:, 0], -1.0)
        return Scores(maps, maps.amax(dim=(1, 2)))


@pytest.fixture
def job(scans, prior, tmp_path) -> EvaluationJob:
    detection = DetectionSettings(sampling=SamplingSettings(steps=4, samples=1), batch_slices=4, device="cpu")
    return EvaluationJob(
        scans=scans,
        json_file=tmp_path / "matched.json",
        study=STUDY,
        run=RunSettings(detection, ("klip",), reference_slices=6),
        prior=prior,
        reference=(Source(scans[1].path, "a third patient", ((8, 18),)),),
        baselines={"lung": ShowsLung(), "brightest": Brightest()},
        bootstrap=Bootstrap(20),
    )


def test_from_scans_to_figures_and_nothing_else_changes(job, tmp_path):
    document = run_evaluation(job)
    nodule, star = document["results"]["nodule"], document["results"]["star"]
    assert nodule["lung"]["dataset_auroc"]["value"] == 1.0
    for name in MATCHED:
        assert nodule["lung"][name]["value"] == star["lung"][name]["value"] == 0.5
        assert star["brightest"][name]["value"] == 1.0
    slices = document["slices"]
    unaltered = [one for one in slices if one["kind"] == UNALTERED]
    assert document["counts"]["unaltered"] == len(unaltered) == len(slices) - 14 > 0
    scores = {one["number"]: one["scores"]["klip"]["score"] for one in slices}
    pairs = [(scores[one["number"]], scores[one["original"]]) for one in slices if one["kind"] == "nodule"]
    assert nodule["klip"]["raised"]["value"] == pytest.approx(np.mean([after > before for after, before in pairs]))
    statistic = mannwhitneyu(*zip(*pairs, strict=True)).statistic
    assert nodule["klip"]["matched_auroc"]["value"] == pytest.approx(statistic / len(pairs) ** 2)

    report = job.report_folder
    rows = list(csv.DictReader((report / "evaluation.csv").open()))
    assert [float(row["matched_auroc"]) for row in rows if row["method"] == "lung"] == [0.5, 0.5]
    assert [float(row["raised_low"]) for row in rows if row["method"] == "lung"] == [0.5, 0.5]
    heading = "| method | image AUROC | dataset AUROC | matched AUROC | raised | average precision |"
    assert heading in (report / "evaluation.md").read_text()

    without = run_evaluation(replace(job, json_file=tmp_path / "without.json", study=replace(STUDY, matched=False)))
    assert without["counts"]["unaltered"] == 0
    assert without["results"]["nodule"]["lung"]["matched_auroc"]["value"] is None
    assert "| lung | " in (tmp_path / "without-report" / "evaluation.md").read_text()
    assert without["calibration"] == document["calibration"]
    for kind, methods in without["results"].items():
        for method, found in methods.items():
            others = {name: value for name, value in found.items() if name not in MATCHED}
            assert others.items() <= document["results"][kind][method].items()
    assert [one["scores"] for one in without["slices"]] == [one["scores"] for one in slices[:14]]


def test_a_run_stopped_among_unaltered_slices_is_resumed_and_an_older_one_refused(job, tmp_path):
    detection = replace(job.run.detection, batch_slices=5)
    job = replace(
        job, study=replace(STUDY, kinds=("star",)), baselines={}, run=replace(job.run, detection=detection)
    )
    whole = run_evaluation(replace(job, json_file=tmp_path / "whole.json"))
    # 2 healthy slices and 6 stars make 2 batches, at most 6 unaltered ones the third and perhaps a fourth
    with pytest.raises(Cancelled, match="--resume"):
        run_evaluation(job, cancelled=lambda: len(list(job.work_folder.glob("batch-*.npz"))) == 2)
    again = run_evaluation(replace(job, resume=True))
    assert {**again, "timing": None} == {**whole, "timing": None}

    with pytest.raises(UsageError, match="another value of: slices, study"):
        run_evaluation(replace(job, resume=True, study=replace(job.study, matched=False)))
    state = job.work_folder / "state.json"
    before = json.loads(state.read_text())
    del before["study"]["matched"]
    state.write_text(json.dumps(before))
    with pytest.raises(UsageError, match="another value of: study"):
        run_evaluation(replace(job, resume=True))


def test_the_command_leaves_them_out_on_request(capsys, scans, prior, tmp_path):
    code, _, err = run_cli(
        capsys, "evaluate", scans[0].path, "--json", tmp_path / "e.json", "--lesions", "star", "--count", "1",
        "--healthy-slices", "1", "--score", "klip", "--baselines", "none", "--resamples", "5", "--prior", prior,
        "--steps", "4", "--samples", "1", "--no-matched", "--progress", "none",
    )  # fmt: skip
    assert (code, err) == (0, "")
    document = json.loads((tmp_path / "e.json").read_text())
    assert (document["settings"]["matched"], document["counts"]["unaltered"]) == (False, 0)
    assert document["results"]["star"]["klip"]["raised"]["value"] is None
