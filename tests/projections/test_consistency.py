"""What is wrong with a scan is said, by name; what is only noisy is not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from klip_engine.scans import consistency, to_slices
from tests.projections.scanner import fan_scan, parallel_scan, turn

SCANS = {
    "curved": lambda: fan_scan(angles=turn(240)),
    "flat": lambda: fan_scan(angles=turn(240), shape="flat"),
    "short": lambda: fan_scan(angles=turn(240, turns=0.65)),
    "parallel turn": lambda: parallel_scan(angles=turn(240)),
    "parallel half": lambda: parallel_scan(angles=turn(480, turns=0.5)),
}


@pytest.fixture(scope="module")
def scans():
    return {name: scan() for name, scan in SCANS.items()}


def noisy(scan, i0, seed):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(i0 * np.exp(-scan.line_integrals)) + 5 * rng.standard_normal(scan.line_integrals.shape)
    data = np.minimum(-np.log(np.maximum(counts, 1) / i0), 9).astype(np.float32)
    return dataclasses.replace(scan, line_integrals=data, i0=i0, electronic_sigma=5.0)


def with_geometry(slices, **fields):
    return dataclasses.replace(slices, geometry=dataclasses.replace(slices.geometry, **fields))


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("i0", [1e6, 1e5, 2e4, 5e3])
def test_good_scans_of_any_dose_are_left_alone(scans, name, i0):
    for seed in range(2):
        assert consistency(to_slices(noisy(scans[name], i0, seed))) == ()


@pytest.mark.parametrize("name", ["curved", "flat", "short"])
def test_a_mirrored_fan_is_recognised(scans, name):
    slices = to_slices(noisy(scans[name], 1e5, 0))
    flipped = dataclasses.replace(slices, line_integrals=slices.line_integrals[..., ::-1].copy())
    assert "mirrored" in consistency(flipped)[0].sentence


@pytest.mark.parametrize("name", SCANS)
def test_angles_out_of_order_are_recognised(scans, name):
    slices = to_slices(noisy(scans[name], 1e5, 0))
    angles = np.random.default_rng(5).permutation(slices.geometry.view_angles_rad)
    assert "view angles" in consistency(with_geometry(slices, view_angles_rad=tuple(angles)))[0].sentence


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("bins", [-3, 1])
def test_a_shifted_detector_is_recognised_and_measured(scans, name, bins):
    slices = to_slices(noisy(scans[name], 1e5, 0))
    offset = slices.geometry.detector_offset_bins + bins
    sentence = consistency(with_geometry(slices, detector_offset_bins=offset))[0].sentence
    said = float(sentence.split("about ")[1].split(" mm")[0])
    pitch = slices.geometry.detector_pitch_mm / slices.geometry.magnification
    assert said == pytest.approx(-bins * pitch, abs=0.5)
