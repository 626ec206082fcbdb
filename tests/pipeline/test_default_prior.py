"""The prior, the null and the CT that come with the engine, end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import klip_engine
from klip_engine import load_prior
from klip_engine.calibration import known_null
from klip_engine.demo import demo_ct, demo_truth
from klip_engine.presets import PRESETS
from klip_engine.priors import load_reference
from klip_engine.settings import SCORES
from klip_engine.stacks import between_neighbours
from tests.conftest import run_cli

DATA = Path(klip_engine.__file__).parent / "data"


def test_the_default_prior_states_what_it_saw_and_did_not_see_the_validation_patients():
    prior = load_prior()
    card = (prior.folder / "docs" / "README.md").read_text()
    assert prior.training["patients"] >= 50
    assert set(prior.training["validation_patients"]) == {"LIDC-IDRI-0314", "C3N-00249"}
    table = card.split("## Training slices by patient")[1]
    for unseen in ("LIDC-IDRI-0314", "C3N-00249"):
        assert unseen not in table
    for collection in ("ACRIN-FLT-Breast", "LIDC-IDRI", "LCTSC", "CPTAC-LUAD", "TCGA-COAD", "C4KC-KiTS"):
        assert collection in card
    assert sum(path.stat().st_size for path in prior.folder.rglob("*") if path.is_file()) < 16e6


@pytest.mark.parametrize("preset", ["default", "fast", "sparse-24"])
@pytest.mark.parametrize("score", [variant for score in SCORES.values() for variant in score.variants])
def test_the_first_presets_have_their_null_in_the_default_prior(preset, score):
    null = known_null(load_prior(), replace(PRESETS[preset], score=score))
    assert null is not None
    assert "healthy scans" in null.source
    assert null.finest_rate < PRESETS[preset].false_alarms


def test_the_reference_slices_of_the_default_prior_are_real_and_fit_its_grid():
    prior = load_prior()
    reference = load_reference(prior.folder, prior.grid.shape)
    assert reference is not None
    assert len(set(reference.scan.tolist())) >= 50
    assert between_neighbours(reference.stack).sum() >= 60
    assert reference.body.any(axis=(1, 2)).all()


def test_weights_and_demo_data_stay_small():
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 40e6


@pytest.mark.end_to_end
def test_the_demo_finds_its_lesion(capsys, tmp_path):
    code, printed, _ = run_cli(capsys, "demo", "-o", tmp_path / "demo", "--progress", "json")
    assert code == 0
    done = json.loads(printed.splitlines()[-1])
    assert "was marked" in done["verdict"]
    findings = json.loads((tmp_path / "demo" / "findings.json").read_text())
    distances = [
        np.linalg.norm(np.subtract(f["centroid_lps_mm"], demo_truth()["centre_lps_mm"]))
        for f in findings["findings"]
    ]
    assert min(distances) < 9.0  # the nodule's radius
    assert not any("No null distribution" in notice for notice in findings["notices"])
    source = sitk.ReadImage(demo_ct())
    for name in ("reconstruction", "klip", "regions"):
        image = sitk.ReadImage(tmp_path / "demo" / f"{name}.nrrd")
        assert image.GetSize() == source.GetSize()
        np.testing.assert_allclose(image.GetOrigin(), source.GetOrigin(), atol=1e-6)
        np.testing.assert_allclose(image.GetSpacing(), source.GetSpacing(), atol=1e-6)
        np.testing.assert_allclose(image.GetDirection(), source.GetDirection(), atol=1e-6)


@pytest.mark.end_to_end
def test_a_native_dicom_series_comes_back_in_its_own_grid(capsys, shared_ct, tmp_path):
    series = shared_ct / "dicom" / "c4kc-kits-00072"
    code, _, err = run_cli(
        capsys, "detect", series, "-o", tmp_path / "out", "--preset", "fast", "--progress", "none"
    )
    assert code == 0, err
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    source = reader.Execute()
    reconstruction = sitk.ReadImage(tmp_path / "out" / "reconstruction.nrrd")
    assert reconstruction.GetSize() == source.GetSize()
    np.testing.assert_allclose(reconstruction.GetOrigin(), source.GetOrigin(), atol=1e-3)
    inside = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "out" / "klip.nrrd")) > 0
    difference = sitk.GetArrayFromImage(reconstruction).astype(float) - sitk.GetArrayFromImage(source)
    assert abs(np.median(difference[inside])) < 10  # HU; the reconstruction lies where the patient lies
    assert np.median(np.abs(difference[inside])) < 40
