"""`klip-engine evaluate` from volumes to report, with a tiny prior and tiny scans."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from klip_engine.calibration import calibrate, healthy_reference
from klip_engine.errors import Cancelled, InputError, UsageError
from klip_engine.evaluation import lesion_mask
from klip_engine.evaluation.baselines.base import Evidence, Scores
from klip_engine.evaluation.command import EvaluationJob, run_evaluation
from klip_engine.evaluation.run_settings import RunSettings
from klip_engine.evaluation.statistics import Bootstrap
from klip_engine.evaluation.study import HEALTHY, StudySettings, collect_study
from klip_engine.io.sources import Source
from klip_engine.priors import load_prior, save_reference
from klip_engine.settings import DetectionSettings, SamplingSettings
from klip_engine.slices import Watch
from klip_engine.volume import CTVolume, Geometry
from klip_engine.working_grid import WorkingGrid, to_working_grid
from tests.conftest import run_cli, save_wiener_prior
from tests.evaluation.conftest import two_patients

GRID = WorkingGrid((48, 64), 5.0, 3.0)
GEOMETRY = Geometry((80, 60, 26), (4.0, 4.0, 3.0), (-159.0, -119.0, -300.0))

pytestmark = pytest.mark.usefixtures("quick_null")


@pytest.fixture(scope="session")
def scans(torso, tmp_path_factory) -> tuple[Source, ...]:
    """On 4 mm pixels."""
    return two_patients(CTVolume(torso.hu[:, ::2, ::2], GEOMETRY), tmp_path_factory.mktemp("scans"))


STUDY = StudySettings(("star", "tumor"), count=2, healthy_slices=3, seed=4)


@pytest.fixture(scope="session")
def prior(tmp_path_factory) -> Path:
    return save_wiener_prior(tmp_path_factory.mktemp("priors") / "coarse", GRID)


@pytest.fixture(scope="session")
def study(scans):
    return collect_study(scans, GRID, STUDY)


def test_the_same_seed_gives_the_same_study_and_another_seed_another(scans, study):
    assert collect_study(scans, GRID, STUDY).digest() == study.digest()
    other = collect_study(scans, GRID, replace(STUDY, seed=5))
    assert other.digest() != study.digest()
    # a kind alone gives the same lesions as among others
    alone = collect_study(scans, GRID, replace(STUDY, kinds=("tumor",)))
    tumors = [[case.lesion for case in one.cases if case.kind == "tumor"] for one in (alone, study)]
    assert tumors[0] == tumors[1]
    assert len(tumors[0]) == 4


def test_a_study_holds_healthy_slices_and_one_recorded_lesion_per_altered_slice(scans, study):
    healthy = [case for case in study.cases if case.kind == HEALTHY]
    assert [case.index for case in healthy[:3]] == [0, 10, 20]
    assert not study.lesion[[case.number for case in healthy]].any()
    for scan, source in zip(study.scans, scans, strict=True):
        assert (scan.placed, scan.healthy_slices, scan.patient) == ({"star": 2, "tumor": 2}, 3, source.patient)
    working = to_working_grid(read(scans[0]), GRID)
    for case in study.cases:
        if case.lesion is not None and case.patient == "patient 0":
            mask = lesion_mask(case.lesion, working.geometry) & working.body
            assert mask.sum(axis=(1, 2)).argmax() == case.index <= 20
            np.testing.assert_array_equal(study.lesion[case.number], mask[case.index])
            changed = np.abs(study.hu[case.number] - working.hu[case.index]) > 1
            assert changed[study.lesion[case.number]].all()
            assert changed.sum() < 4 * study.lesion[case.number].sum() + 12


def read(source: Source):
    from klip_engine.io import read_ct

    return read_ct(source.path).volume


def test_an_altered_slice_is_the_one_the_whole_altered_scan_gives(scans):
    from klip_engine.evaluation.study import _Site

    site = _Site.of(scans[0], GRID)
    volume = read(scans[0])
    volume.hu[12:15, 25:30, 30:35] += 300
    whole = to_working_grid(volume, GRID)
    np.testing.assert_allclose(site._altered_slice(volume, 13), whole.hu[13], atol=1e-3)


@dataclass(frozen=True)
class Brightness:
    """A method of comparison that calls bright what is brighter than healthy slices are."""

    name: str = "brightness"
    source: str = "none"
    usual: float = 0.0

    def fitted(self, denoiser, healthy: Evidence, seed: int) -> Brightness:
        assert len(healthy.numbers) == len(healthy.reconstruction) == len(healthy.measurement.data)
        return replace(self, usual=float(healthy.reconstruction[:, 0][healthy.body].mean()))

    def score(self, denoiser, evidence: Evidence, seed: int) -> Scores:
        maps = (evidence.measurement.data[:, 0] - self.usual).abs()
        return Scores(maps, torch.where(evidence.body, maps, 0).amax(dim=(1, 2)))


@pytest.fixture
def job(scans, prior, tmp_path) -> EvaluationJob:
    detection = DetectionSettings(sampling=SamplingSettings(steps=4, samples=1), batch_slices=4, device="cpu")
    return EvaluationJob(
        scans=scans,
        json_file=tmp_path / "result.json",
        study=STUDY,
        run=RunSettings(detection, ("klip", "klip-coherent"), reference_slices=6),
        prior=prior,
        reference=(Source(scans[1].path, "a third patient", ((8, 18),)),),
        baselines={"brightness": Brightness()},
        bootstrap=Bootstrap(20),
    )


def without_time(document: dict) -> dict:
    return {key: value for key, value in document.items() if key != "timing"}


def test_an_evaluation_writes_the_contract_and_a_resumed_one_is_the_same(job, tmp_path):
    document = run_evaluation(job)
    stored = json.loads(job.json_file.read_text())
    assert stored == document
    assert stored["schema"] == "klip-evaluation/1"
    assert list(stored["results"]) == ["star", "tumor"]
    for methods in stored["results"].values():
        assert list(methods) == ["klip", "klip-coherent", "brightness"]
        for figures in methods.values():
            for name in ("image_auroc", "dataset_auroc", "average_precision", "matched_auroc", "raised"):
                one = figures[name]
                assert 0 <= one["low"] <= one["high"] <= 1
                assert 0 <= one["value"] <= 1
            assert list(figures["froc"]) == ["0.5", "1", "2"]
            assert figures["counts"] == {
                "altered_slices": 4, "healthy_slices": 6, "patients": 2, "patients_with_lesion": 2,
            }  # fmt: skip
    assert stored["results"]["star"]["brightness"]["image_auroc"]["value"] > 0.9
    healthy = {(case["file"], case["index"]) for case in stored["slices"] if case["kind"] == HEALTHY}
    originals = {(case["file"], case["index"]) for case in stored["slices"] if case["lesion"]}
    unaltered = len(originals - healthy)
    assert stored["counts"] == {
        "patients": 2, "scans": 2, "healthy": 6, "star": 4, "tumor": 4, "unaltered": unaltered,
    }  # fmt: skip
    assert [rate["nominal"] for rate in stored["calibration"]["klip"]["rates"]] == [0.01, 0.05, 0.1, 0.2, 0.5]
    assert stored["calibration"]["klip"]["null"]["slices"] == 4
    assert stored["calibration"]["brightness"]["null"] == {"from": "3 reference slices", "slices": 3}
    assert stored["settings"]["detection"]["sampling"]["steps"] == 4
    assert len(stored["slices"]) == 14 + unaltered
    assert set(stored["slices"][0]["scores"]) == {"klip", "klip-coherent", "brightness"}
    assert "so few patients" in stored["notices"][-2]
    assert "Fewer than 5 lesions (star 4, tumor 4)" in stored["notices"][-1]

    report = job.json_file.with_name("result-report")
    assert {path.name for path in report.iterdir()} == {
        "evaluation.md", "evaluation.csv", "roc.png", "froc.png", "calibration.png",
        "examples-star.png", "examples-tumor.png",
    }  # fmt: skip
    rows = list(csv.DictReader((report / "evaluation.csv").open()))
    assert [(row["kind"], row["method"]) for row in rows[:2]] == [("star", "klip"), ("star", "klip-coherent")]
    value = stored["results"]["star"]["klip"]["image_auroc"]["value"]
    assert float(rows[0]["image_auroc"]) == pytest.approx(value, abs=1e-4)
    assert "not a medical device" in (report / "evaluation.md").read_text()

    stopped = replace(job, json_file=tmp_path / "stopped.json")
    with pytest.raises(Cancelled, match="--resume"):
        run_evaluation(stopped, cancelled=lambda: len(list(stopped.work_folder.glob("batch-*.npz"))) == 2)
    assert not stopped.json_file.exists()
    assert not list(tmp_path.glob("**/*.partial"))
    again = run_evaluation(replace(stopped, resume=True))
    assert without_time(again) == without_time(document)
    assert again["timing"]["network_evaluations"] < document["timing"]["network_evaluations"]
    for name in ("evaluation.csv", "evaluation.md"):
        assert (tmp_path / "stopped-report" / name).read_bytes() == (report / name).read_bytes()

    with pytest.raises(UsageError, match="--resume continues it"):
        run_evaluation(stopped)
    changed = replace(job.run, detection=replace(job.run.detection, seed=9))
    with pytest.raises(UsageError, match="another value of: detection"):
        run_evaluation(replace(stopped, resume=True, run=changed))
    with pytest.raises(UsageError, match="slices"):
        run_evaluation(replace(stopped, resume=True, study=replace(STUDY, seed=9)))
    damaged = stopped.work_folder / "batch-000004.npz"
    damaged.write_bytes(b"PK nothing")
    with pytest.raises(UsageError, match="batch-000004.npz is damaged"):
        run_evaluation(replace(stopped, resume=True))


def test_methods_learn_from_slices_drawn_from_the_prior_where_no_reference_is_given(job, monkeypatch):
    def drawn(prior, count, settings, device, meter):
        return np.where(np.hypot(*np.mgrid[-24:24, -32:32]) < 15, 40.0, -1000.0)[None].repeat(count, 0)

    monkeypatch.setattr("klip_engine.drawing.draw_slices", drawn)
    document = run_evaluation(
        replace(
            job,
            reference=(),
            study=replace(STUDY, kinds=("star",), count=1),
            run=replace(job.run, scores=("klip",)),
        )
    )
    assert document["settings"]["reference"] == "kept beside the prior, or drawn from it"
    assert list(document["results"]["star"]) == ["klip", "brightness"]


def test_evaluating_the_patients_behind_the_reference_is_said(job, scans, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(job.prior, bundle)
    save_reference(bundle, healthy_reference(scans, GRID, 100, Watch()))
    small = replace(job, study=replace(STUDY, kinds=("star",), count=1), run=replace(job.run, scores=("klip",)))
    document = run_evaluation(replace(small, prior=bundle, reference=(), baselines={}))
    assert any("4 healthy slices are also reference slices" in notice for notice in document["notices"])
    assert document["methods"][0]["null"]["source"] == "4 slices of 2 healthy scans"
    document = run_evaluation(replace(small, json_file=tmp_path / "other.json", baselines={}))
    assert not any("reference slices" in notice for notice in document["notices"])


def test_a_resumed_run_keeps_its_nulls_whatever_is_calibrated_meanwhile(job, tmp_path, monkeypatch):
    bundle = tmp_path / "bundle"
    shutil.copytree(job.prior, bundle)
    monkeypatch.setenv("KLIP_CACHE", str(tmp_path / "cache"))
    small = replace(
        job, prior=bundle, reference=(), baselines={},
        study=replace(STUDY, kinds=("star",), count=1), run=replace(job.run, scores=("klip",)),
    )  # fmt: skip
    whole = run_evaluation(replace(small, json_file=tmp_path / "whole.json"))
    with pytest.raises(Cancelled):
        run_evaluation(small, cancelled=lambda: len(list(small.work_folder.glob("batch-*.npz"))) == 1)
    settings = small.run.scored_by("klip")
    other = calibrate(load_prior(bundle), settings, "cpu", count=3)
    replace(other, scales=tuple(tuple(100 * s for s in places) for places in other.scales)).save(bundle / "null")
    again = run_evaluation(replace(small, resume=True))
    assert again["slices"] == whole["slices"]


def test_settings_of_a_result_run_the_same_again(capsys, scans, prior, tmp_path):
    few = ["--prior", prior, "--steps", "4", "--samples", "2", "--score", "klip", "--progress", "none"]
    first, again = tmp_path / "first", tmp_path / "again"
    assert run_cli(capsys, "detect", scans[0].path, "-o", first, "--seed", "5", *few)[0] == 0
    repeat = ["--settings", first / "findings.json", "--prior", prior, "--progress", "none"]
    assert run_cli(capsys, "detect", scans[0].path, "-o", again, *repeat)[0] == 0
    assert json.loads((again / "findings.json").read_text())["settings"]["seed"] == 5
    assert (first / "klip.nrrd").read_bytes() == (again / "klip.nrrd").read_bytes()


def test_a_kind_that_fits_nowhere_is_counted_and_all_of_them_is_an_error(scans, tmp_path):
    only_liver = Source(scans[0].path, "patient 0", ((0, 8),))
    found = collect_study([only_liver], GRID, StudySettings(("nodule", "star"), 2, 2))
    assert found.scans[0].placed == {"nodule": 0, "star": 2}
    assert found.scans[0].asked == 2
    with pytest.raises(InputError, match="none of these lesions fits"):
        collect_study([only_liver], GRID, StudySettings(("nodule",), 2, 2))


def test_the_command_takes_a_table_and_speaks_json(capsys, scans, prior, tmp_path):
    table = scans[0].path.parent / "table.csv"
    table.write_text("file,patient,slices\ntorso-0.nrrd,one,0-20\n")
    result = tmp_path / "new" / "e.json"
    code, printed, err = run_cli(
        capsys, "evaluate", table, "--json", result, "-o", tmp_path / "tables", "--lesions", "star", "--count", "1",
        "--healthy-slices", "2", "--score", "klip", "--baselines", "none", "--resamples", "5", "--prior", prior,
        "--steps", "4", "--samples", "1", "--progress", "json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    events = [json.loads(line) for line in printed.splitlines()]
    assert events[-1]["event"] == "done"
    assert events[-1]["counts"] == {"patients": 1, "scans": 1, "healthy": 2, "star": 1, "unaltered": 1}
    assert list(json.loads(result.read_text())["results"]["star"]) == ["klip"]
    assert (tmp_path / "tables" / "evaluation.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--lesions", "meteorite"], 2, "Unknown lesion kind 'meteorite'"),
        (["--lesions", "star,star"], 2, "each once"),
        (["--lesions", ","], 2, "at least one lesion kind"),
        (["--score", "luck"], 2, "no score is called 'luck'"),
        (["--score", "klip", "--score", "klip"], 2, "each once"),
        (["--baselines", "tea-leaves"], 2, "no method of comparison is called 'tea-leaves'"),
        (["--json", "result.txt"], 2, "--json names the file"),
        (["--prior", "none-such"], 3, "no prior 'none-such'"),
        (["--reference", "SCAN"], 2, "both the evaluation and the reference"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_name(
    capsys, scans, tmp_path, monkeypatch, arguments, code, sentence
):
    monkeypatch.chdir(tmp_path)
    filled = [str(scans[0].path) if one == "SCAN" else one for one in arguments]
    given = ["evaluate", scans[0].path, "--json", tmp_path / "r.json", *filled, "--progress", "none"]
    result, _, err = run_cli(capsys, *given)
    assert result == code
    assert sentence in " ".join(err.split())
    assert not list(tmp_path.iterdir())


def test_a_scan_that_cannot_be_used_is_named(capsys, scans, prior, tmp_path):
    code, _, err = run_cli(
        capsys, "evaluate", tmp_path / "gone.nrrd", "--json", tmp_path / "r.json", "--prior", prior
    )
    assert (code, "gone.nrrd" in err) == (3, True)
    air = tmp_path / "air.nrrd"
    sitk.WriteImage(Geometry((40, 40, 3), (4.0, 4.0, 4.0)).image(np.full((3, 40, 40), -1000, np.int16)), air)
    code, _, err = run_cli(capsys, "evaluate", air, "--json", tmp_path / "r.json", "--prior", prior)
    assert (code, "air.nrrd" in err) == (3, True)
    assert not list(tmp_path.glob("r*"))
