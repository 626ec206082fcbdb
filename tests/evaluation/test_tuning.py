"""`klip-engine tune`: windows and blocks on stars, with a tiny prior and a tiny scan."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from klip_engine.errors import UsageError
from klip_engine.evaluation.study import StudySettings, collect_study
from klip_engine.evaluation.tuning import tune, tuned_settings
from klip_engine.io.sources import Source
from klip_engine.presets import read_settings
from klip_engine.priors import load_prior
from klip_engine.scoring.klip import ScoreTerm
from klip_engine.scoring.metrics import auroc, image_level_auroc, touching_blocks
from klip_engine.settings import DetectionSettings, SamplingSettings, ScoreSettings
from klip_engine.slices import NetworkMeter, score_images
from klip_engine.working_grid import images_of_hu
from tests.conftest import run_cli
from tests.evaluation.conftest import GRID

SETTINGS = DetectionSettings(sampling=SamplingSettings(steps=4), batch_slices=4, device="cpu")


@pytest.fixture(scope="module")
def scan(torso, tmp_path_factory) -> Source:
    path = tmp_path_factory.mktemp("tuning-scan") / "torso.nrrd"
    sitk.WriteImage(torso.geometry.image(np.rint(torso.hu).astype(np.int16)), path)
    return Source(path, "patient")


@pytest.fixture(scope="module")
def study(scan):
    return collect_study((scan,), GRID, StudySettings(("star",), count=3, healthy_slices=4, matched=False))


def test_a_candidate_has_the_figures_that_its_score_has_alone(study, prior):
    bundle = load_prior(prior)
    candidates = tune(study, bundle, SETTINGS, ("plain", "coherent"), device="cpu")
    assert [one.both for one in candidates] == sorted((one.both for one in candidates), reverse=True)
    # 4 levels give 6 windows; 4 blocks for plain, 3 neighbourhoods for coherent
    assert len(candidates) == 6 * 4 + 6 * 3
    wide = [one for one in candidates if one.term.weighting == "plain" and one.block_pixels == 3]
    candidate = max(wide, key=lambda one: one.term.window[1] / one.term.window[0])
    score = ScoreSettings("alone", (candidate.term,), (3 * GRID.pixel_mm,))
    scored = score_images(
        images_of_hu(study.hu), bundle, replace(SETTINGS, score=score), "cpu", NetworkMeter(bundle.denoiser), ""
    )
    from klip_engine.scoring.score_map import block_maps

    maps = block_maps(scored.density, [3])[0]
    strange = study.lesion.any(axis=(1, 2))
    highest = np.array([m[b].max() for m, b in zip(maps, study.body, strict=True)])
    images = [
        image_level_auroc(m, touching_blocks(truth, 3), b)
        for m, truth, b in zip(maps, study.lesion, study.body, strict=True)
        if truth.any()
    ]
    assert candidate.image_auroc == pytest.approx(np.mean(images), abs=1e-3)
    assert candidate.dataset_auroc == pytest.approx(auroc(highest[strange], highest[~strange]), abs=1e-3)


def test_the_command_writes_settings_that_detect_takes(scan, prior, tmp_path, capsys):
    code, _, err = run_cli(
        capsys, "tune", scan.path, "-o", tmp_path / "tuned.json", "--prior", prior, "--count", "2",
        "--healthy-slices", "3", "--steps", "4", "--progress", "none",
    )  # fmt: skip
    assert code == 0, err
    settings = read_settings(tmp_path / "tuned.json")
    assert settings.score.name == "tuned-plain"
    assert settings.sampling.steps == 4
    record = json.loads((tmp_path / "tuned-tuning.json").read_text())
    assert record["schema"] == "klip-tuning/1"
    assert record["counts"] == {"healthy_slices": 3, "stars": 2, "patients": 1}
    best = record["best"]["plain"]
    assert best["image_level"]["image_auroc"] >= best["both"]["image_auroc"]
    assert best["dataset_level"]["dataset_auroc"] == max(one["dataset_auroc"] for one in record["candidates"])
    assert settings.score.terms == (
        ScoreTerm(tuple(best["both"]["term"]["window"]), "plain", ScoreTerm.coherence_pixels),
    )


def test_tuning_on_anything_but_stars_is_refused(scan, prior):
    other = collect_study(
        (scan,), GRID, StudySettings(("star", "nodule"), count=1, healthy_slices=2, matched=False)
    )
    with pytest.raises(UsageError, match="healthy slices and stars only, not at healthy, nodule, star"):
        tune(other, load_prior(prior), SETTINGS, ("plain",), device="cpu")


def test_settings_come_back_from_their_file(tmp_path):
    terms = (ScoreTerm(), ScoreTerm((0.1, 0.5), "coherent", 2.0))
    settings = replace(SETTINGS, score=ScoreSettings("mine", terms, (3.0,)))
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"settings": settings.to_dict() | {"null": {"slices": 3}}}))
    assert read_settings(path) == settings
    path.write_text(json.dumps(settings.to_dict()))
    assert read_settings(path) == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "missing or not JSON"),
        ("[1]", "holds no settings"),
        ('{"operatr": {}}', "operatr"),
        ('{"sampling": {"stepps": 3}}', "stepps"),
        ('{"sampling": {"steps": 1}}', "at least 2 steps"),
        ('{"sampling": {"steps": 12.5}}', "at least 2 steps"),
        ('{"sampling": {"sigma_min": "low"}}', "sigma_min"),
        ('{"batch_slices": 2.5}', "batch_slices"),
        ('{"seed": true}', "seed"),
        ('{"device": 7}', "device"),
        ('{"false_alarms": "few"}', "false alarms"),
        ('{"operator": {"views": "24"}}', "views"),
        ('{"operator": {"noise_hu": null}}', "noise_hu"),
        ('{"score": {"name": "x"}}', "terms"),
        ('{"score": {"name": "x", "terms": [], "block_mm": [3]}}', "at least one term"),
        ('{"score": {"name": "x", "terms": [{"window": [0, 1]}], "block_mm": []}}', "block sizes"),
        ('{"score": {"name": "x", "terms": [{"window": [1, 0]}], "block_mm": [3]}}', "lower to a higher"),
        ('{"score": {"name": "", "terms": [{"window": [0, 1], "coherence_pixels": 0}], "block_mm": [3]}}', "0 pi"),
        ('{"score": {"name": "", "terms": [{"window": [0, 1], "unit_quantile": 3}], "block_mm": [3]}}', "quantile"),
        (
            '{"score": {"name": "", "terms": [{"window": [0, 1], "over_neighbours": 1}], "block_mm": [3]}}',
            "true or",
        ),
        ('{"score": {"name": "x", "terms": [{"window": [0, 1], "weighting": "loud"}], "block_mm": [3]}}', "loud"),
    ],
)
def test_files_that_hold_no_settings_are_refused_with_a_sentence(tmp_path, text, message):
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_settings(path)


def test_settings_and_record_need_two_json_files(scan, tmp_path):
    from klip_engine.evaluation.tuning import TuningJob

    with pytest.raises(UsageError, match="two files"):
        TuningJob((scan,), tmp_path / "a.json", tmp_path / "a.json", "plain", 1, 1, SETTINGS)
    with pytest.raises(UsageError, match="json file"):
        TuningJob((scan,), tmp_path / "a.txt", None, "plain", 1, 1, SETTINGS)
    with pytest.raises(UsageError, match="no weighting is called 'loud'"):
        TuningJob((scan,), tmp_path / "a.json", None, "loud", 1, 1, SETTINGS)


def test_tuned_settings_name_their_weighting(study, prior):
    best = tune(study, load_prior(prior), SETTINGS, ("variance",), device="cpu")[0]
    tuned = tuned_settings(SETTINGS, best, GRID.pixel_mm)
    assert tuned.score.name == "tuned-variance"
    assert tuned.score.blocks(GRID.pixel_mm) == (best.block_pixels,)
    assert DetectionSettings.from_dict(tuned.to_dict()) == tuned
