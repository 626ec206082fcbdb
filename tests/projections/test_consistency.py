"""What is wrong with a scan is said, by name; what contradicts it is told apart from what is only noisy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from klip_engine.scans import consistency, doubts_about, to_slices
from tests.projections.scanner import BODY, Ellipsoid, fan_scan, parallel_scan, turn

WATER = (Ellipsoid((0, 0, 0), (110, 110, 400), 1.0),)
CENTRED = (Ellipsoid((0, 0, 0), (150, 100, 400), 1.0), Ellipsoid((0, 60, 0), (15, 15, 300), 0.6))
METAL = (*BODY, Ellipsoid((40, 30, 0), (6, 6, 400), 8.0))
SCANS = {
    "curved": lambda body=BODY: fan_scan(body, angles=turn(180)),
    "flat": lambda body=BODY: fan_scan(body, angles=turn(180), shape="flat"),
    "short": lambda body=BODY: fan_scan(body, angles=turn(180, turns=0.65)),
    "24 views": lambda body=BODY: fan_scan(body, angles=turn(24)),
    "offset": lambda body=BODY: fan_scan(body, angles=turn(180), columns=160, central_column=45.0),
    "truncated": lambda body=BODY: fan_scan(body, angles=turn(180), columns=110),
    "parallel turn": lambda body=BODY: parallel_scan(body, angles=turn(180)),
    "parallel half": lambda body=BODY: parallel_scan(body, angles=turn(240, turns=0.5)),
}
FANS = ("curved", "flat", "short", "24 views", "offset", "truncated")


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


def refused(slices) -> bool:
    return any(doubt.decisive for doubt in consistency(slices))


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("i0", [1e6, 2e4, 5e3])
def test_good_scans_of_any_dose_are_left_alone(scans, name, i0):
    assert consistency(to_slices(noisy(scans[name], i0, 0))) == ()


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("body", [WATER, CENTRED, METAL], ids=["water", "centred", "metal"])
def test_good_scans_of_anything_are_left_alone(name, body):
    assert consistency(to_slices(noisy(SCANS[name](body), 1e6, 0))) == ()


@pytest.mark.parametrize("name", ["curved", "parallel half"])
def test_what_real_scans_suffer_from_is_no_contradiction(name):
    """A patient who moves 8 mm halfway, a tube that loses 3 %, 1 % scatter, beam hardening."""
    still = SCANS[name]()
    moved = SCANS[name](tuple(dataclasses.replace(e, centre=(e.centre[0], e.centre[1] + 8, 0)) for e in BODY))
    p = np.where(
        np.arange(len(still.line_integrals))[:, None, None] < 90, still.line_integrals, moved.line_integrals
    )
    drift = np.linspace(0, 0.03, len(p))[:, None, None]
    for data in (p, -np.log(np.exp(-p - drift) + 0.01), p - 0.02 * p**2):
        scan = dataclasses.replace(still, line_integrals=data.astype(np.float32))
        assert not refused(to_slices(noisy(scan, 1e5, 0)))


def test_a_helix_is_left_alone_and_refused_mirrored():
    views = turn(90, turns=4)
    scan = noisy(fan_scan(angles=views, table_z=np.linspace(-16, 16, len(views)), rows=8), 1e5, 0)
    few, every = to_slices(scan, at_most=3), to_slices(scan, slice_mm=6.0)
    assert len(few) == 3
    assert doubts_about(scan) == consistency(every) == ()
    flipped = dataclasses.replace(scan, line_integrals=scan.line_integrals[..., ::-1].copy())
    assert any(doubt.decisive for doubt in doubts_about(flipped))


@pytest.mark.parametrize("name", FANS)
def test_a_mirrored_fan_is_refused(scans, name):
    slices = to_slices(noisy(scans[name], 1e5, 0))
    turned = with_geometry(slices, view_angles_rad=tuple(-np.array(slices.geometry.view_angles_rad)))
    flipped = dataclasses.replace(
        slices, line_integrals=slices.line_integrals[..., ::-1].copy(), weights=slices.weights[..., ::-1].copy()
    )
    assert refused(turned)
    assert "mirrored" in consistency(turned)[0].sentence
    assert refused(flipped)


def test_a_mirrored_parallel_beam_is_a_mirrored_patient(scans):
    """No test on the data can see it; the documentation says so."""
    slices = to_slices(noisy(scans["parallel half"], 1e5, 0))
    turned = with_geometry(slices, view_angles_rad=tuple(-np.array(slices.geometry.view_angles_rad)))
    assert consistency(turned) == ()


@pytest.mark.parametrize("body", [BODY, CENTRED], ids=["chest", "centred"])
@pytest.mark.parametrize("name", SCANS)
def test_angles_out_of_order_are_refused(name, body):
    slices = to_slices(noisy(SCANS[name](body), 1e5, 0))
    angles = np.random.default_rng(5).permutation(slices.geometry.view_angles_rad)
    shuffled = with_geometry(slices, view_angles_rad=tuple(angles))
    assert refused(shuffled)
    assert any("view angles" in doubt.sentence for doubt in consistency(shuffled))


@pytest.mark.parametrize("name", ["curved", "flat", "parallel turn", "parallel half"])
def test_files_sorted_as_text_are_refused(scans, name):
    """view1, view10, view100, view2, ... with the angles of 1, 2, 3, ..."""
    slices = to_slices(noisy(scans[name], 1e5, 0))
    angles = np.array(slices.geometry.view_angles_rad)
    as_text = sorted(range(len(angles)), key=lambda number: str(number + 1))
    given = np.empty_like(angles)
    given[as_text] = angles
    assert refused(with_geometry(slices, view_angles_rad=tuple(given)))


def test_radians_taken_for_degrees_are_said(scans):
    slices = to_slices(scans["curved"])
    angles = np.radians(slices.geometry.view_angles_rad)
    assert "radians" in consistency(with_geometry(slices, view_angles_rad=tuple(angles)))[0].sentence


@pytest.mark.parametrize("name", ["curved", "flat", "short", "parallel turn", "parallel half"])
@pytest.mark.parametrize("bins", [-3, 1])
def test_a_shifted_detector_is_recognised_and_measured(scans, name, bins):
    slices = to_slices(noisy(scans[name], 1e5, 0))
    offset = slices.geometry.detector_offset_bins + bins
    (doubt,) = consistency(with_geometry(slices, detector_offset_bins=offset))
    said = float(doubt.sentence.split("about ")[1].split(" mm")[0])
    pitch = slices.geometry.detector_pitch_mm / slices.geometry.magnification
    assert said == pytest.approx(-bins * pitch, abs=0.5)
    assert not doubt.decisive
