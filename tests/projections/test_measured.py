"""Measured projections in the data term and through the whole detection."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from klip_engine.errors import UsageError
from klip_engine.io.projections import write_projections
from klip_engine.measured_scan import for_pixels, measured_scanner, scan_settings
from klip_engine.pipeline import detect
from klip_engine.samplers import Measurement
from klip_engine.scans import reconstruct, to_slices
from klip_engine.settings import OperatorSettings
from klip_engine.working_grid import WorkingGrid, to_working_grid
from tests.conftest import run_cli, save_wiener_prior
from tests.projections.scanner import BODY, Ellipsoid, fan_scan, turn

GRID = WorkingGrid((80, 96), 5.0, 3.0)
TABLE = (Ellipsoid((0, 150, 0), (160, 14, 400), 0.9),)
ISOCENTRE = (25.0, -12.0, 100.0)


@pytest.fixture(scope="module")
def scan():
    return fan_scan(BODY + TABLE, angles=turn(120), rows=2, columns=280, isocentre_mm=ISOCENTRE)


@pytest.fixture(scope="module")
def slices(scan):
    return to_slices(scan)


@pytest.fixture(scope="module")
def working(slices):
    return to_working_grid(reconstruct(slices), GRID)


def test_the_data_term_belongs_to_the_working_image(slices, working):
    """With the table subtracted, the data are the projections of the body's working image, shifted isocentre and
    all; without, they are not."""
    working, scanner = measured_scanner(slices, working)
    measured = scanner.measure(torch.from_numpy(working.images[:1]), [0])
    own = scanner.operator.forward(torch.from_numpy(working.images[:1]))
    water = scanner.operator.forward(torch.ones_like(torch.from_numpy(working.images[:1])))
    with_table = torch.from_numpy(for_pixels(slices, 5.0).line_integrals[:1] / slices.mu_water_per_mm) - water
    assert (measured.data - own).std() < 4
    assert (with_table - own).std() > 20


def test_bins_that_were_not_measured_count_for_nothing(scan, working):
    weights = np.full_like(scan.line_integrals, 1e5)
    weights[:, :, 100:110] = 0
    terms = []
    for rubbish in (0.0, 1e5):
        data = np.where(weights > 0, scan.line_integrals, np.float32(rubbish))
        slices = to_slices(dataclasses.replace(scan, line_integrals=data, weights=weights))
        measured = measured_scanner(slices, working)[1].measure(torch.zeros(1, 1, *GRID.shape), [0])
        assert torch.isfinite(measured.back_projection()).all()
        assert torch.isfinite(measured.normal_equations(torch.ones(1, 1, *GRID.shape))).all()
        assert torch.isfinite(Measurement.repeated(measured, 2).double().back_projection()).all()
        terms.append(measured)
    assert torch.equal(terms[0].back_projection(), terms[1].back_projection())
    assert torch.isinf(terms[0].variance).any()


def test_scans_that_differ_in_nothing_that_matters_share_their_settings(slices):
    turned = to_slices(fan_scan(BODY, angles=turn(120, start_deg=47), rows=2, columns=280, i0=1.02e6))
    assert scan_settings(slices, 5.0).scan["i0"] == pytest.approx(1.0e6, rel=0.1)
    assert scan_settings(slices, 5.0) == scan_settings(turned, 5.0)
    with pytest.raises(UsageError, match="measured"):
        OperatorSettings("measured")


def test_detect_takes_projections(scan, tmp_path):
    """Results lie in the scanner's patient coordinates, and a second run finds the null distribution of the
    first."""
    folder = save_wiener_prior(tmp_path / "prior", WorkingGrid((40, 48), 10.0, 3.0))
    first, second = (detect(scan, folder, steps=4, samples=1, seed=seed) for seed in (0, 1))
    assert first.settings["operator"]["name"] == "measured"
    assert any("null distribution was known" in notice for notice in first.notices)
    assert not any("null distribution was known" in notice for notice in second.notices)
    low, high = first.geometry.to_lps((0, 0, 0)), first.geometry.to_lps(np.array(first.geometry.size) - 1)
    assert (low + high)[:2] / 2 == pytest.approx(ISOCENTRE[:2], abs=1)
    assert first.reconstruction.shape == first.geometry.size[::-1]
    error = np.abs(first.working.reconstruction - first.working.measured)[first.working.body]
    assert np.median(error) < 120


def test_the_command_detects_on_a_file_of_projections(capsys, scan, tmp_path):
    folder = save_wiener_prior(tmp_path / "prior", WorkingGrid((40, 48), 10.0, 3.0))
    file, out = tmp_path / "scan.h5", tmp_path / "out"
    write_projections(file, scan)
    common = ["detect", file, "-o", out, "--prior", folder, "--steps", 4, "--samples", 1]
    code, printed, error = run_cli(capsys, *common, "--progress", "json")
    assert code == 0, error
    began = json.loads(printed.splitlines()[0])
    assert (began["operator"], began["views"]) == ("measured", 120)
    document = json.loads((out / "findings.json").read_text())
    assert document["input"]["format"] == "klip-projections/1"
    assert document["settings"]["operator"]["name"] == "measured"
    assert len(document["slices"]) * 2 >= document["input"]["slices"]  # thin rows share a working slice
    # The same run again from its findings.json, and what it cannot do.
    same = ["--settings", out / "findings.json", "--progress", "none"]
    code, _, error = run_cli(capsys, "detect", file, "-o", out, "--prior", folder, *same)
    assert code == 0, error
    again = json.loads((out / "findings.json").read_text())
    assert (again["findings"], again["slices"]) == (document["findings"], document["slices"])
    for words, sentence in (
        (["--views", 24, "--operator", "parallel"], "bring their own views and noise"),
        (["--series", "1.2.3"], "have no series to choose"),
        (["--dicom", "all"], "this input is not DICOM"),
    ):
        code, _, error = run_cli(capsys, *common, *words, "--progress", "none")
        assert code == 2, error
        assert sentence in error


def test_a_cone_beam_file_is_bad_input_with_the_way_out(capsys, tmp_path):
    cone = fan_scan(BODY, angles=turn(60), rows=200, columns=60, isocentre_mm=ISOCENTRE)
    file = tmp_path / "cone.h5"
    write_projections(file, cone)
    folder = save_wiener_prior(tmp_path / "prior", WorkingGrid((40, 48), 10.0, 3.0))
    code, _, error = run_cli(
        capsys, "detect", file, "-o", tmp_path / "out", "--prior", folder, "--progress", "none"
    )
    assert code == 3
    assert "cone" in error
    assert not (tmp_path / "out").exists()
