"""Measured scans against closed forms: every beam and detector comes back as the slices of an asymmetric body."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from klip_engine.errors import InputError
from klip_engine.operators import CTOperator
from klip_engine.scans import reconstruct, to_slices
from klip_engine.scans.weighting import known_or_estimated_weights
from klip_engine.volume import Geometry
from tests.projections.scanner import BODY, MU_WATER, fan_scan, parallel_scan, slice_image, turn

PLATEAUS = ((0, -60), (-62, 20), (66, -40), (4, 70))
"""(x, y) mm inside regions that reach through all heights asked here."""
GRID = Geometry((160, 160, 1), (2.0, 2.0, 1.0), (-159.0, -159.0, 0.0))
SPOTS = np.arange(360) % 2


def errors(slices, thick_mm=0.0):
    """Plateau errors in HU [slices, plateaus], and the correlation with the true slices as they are and flipped."""
    found = reconstruct(slices, GRID).hu / 1000 + 1
    plateaus, correlations = [], []
    for image, z in zip(found, slices.positions_mm, strict=True):
        truth = slice_image(BODY, z, (160, 160), 2.0, thick_mm=thick_mm)
        places = [(round(y / 2 + 79.5), round(x / 2 + 79.5)) for x, y in PLATEAUS]
        differences = 1000 * (image - truth)
        plateaus.append([differences[r - 1 : r + 2, c - 1 : c + 2].mean() for r, c in places])
        flips = (image, image[::-1], image[:, ::-1], image.T)
        correlations.append([np.corrcoef(flip.ravel(), truth.ravel())[0, 1] for flip in flips])
    return np.abs(plateaus), np.array(correlations)


@pytest.mark.parametrize(
    "projections",
    [
        lambda: fan_scan(angles=turn(360)),
        lambda: fan_scan(angles=-turn(360)),
        lambda: fan_scan(angles=turn(360, start_deg=200), mirrored=True),
        lambda: fan_scan(angles=turn(360), shape="flat", column_pitch=3.4, central_column=100.0),
        lambda: fan_scan(angles=turn(360, turns=0.65), rows=4, upside_down=True),
        lambda: parallel_scan(angles=turn(720, turns=0.5), rows=3),
        lambda: fan_scan(angles=turn(360), spot_angle=0.002 - 0.004 * SPOTS, spot_radius=4.0 - 8.0 * SPOTS),
        lambda: fan_scan(angles=turn(360), rows=4, spot_z=0.5 - 1.0 * SPOTS),
    ],
    ids=["curved", "backwards", "mirrored", "flat offset", "short, rows", "parallel", "flying spot", "flying in z"],
)
def test_slices_of_a_scan_at_rest(projections):
    slices = to_slices(projections())
    plateaus, correlation = errors(slices)
    assert plateaus.max() < 10
    assert correlation[:, 0].min() > 0.99
    assert correlation[:, 1:].max() < 0.97
    assert list(slices.positions_mm) == sorted(slices.positions_mm)


@pytest.mark.parametrize(
    ("rows", "pitch", "shape"), [(8, 1.0, "flat"), (16, 0.6, "cylindrical"), (16, 1.5, "cylindrical")]
)
def test_helices_are_rebinned_to_the_true_slices(rows, pitch, shape):
    """Feed of `pitch` times the detector's height at the axis; the body's lungs, organ and nodule change along
    z."""
    feed = rows * 2.0 * 595 / 1085.6 * pitch
    angles = turn(180, turns=40 / feed + 1.5)
    table = (angles - angles.mean()) / (2 * np.pi) * feed * (-1 if shape == "flat" else 1)
    slices = to_slices(fan_scan(angles=angles, table_z=table, rows=rows, shape=shape, upside_down=shape == "flat"))
    assert len(slices) >= 8
    assert np.allclose(np.diff(slices.positions_mm), 3.0)
    plateaus, correlation = errors(slices, thick_mm=3.0)
    assert plateaus.max() < 20
    assert np.median(plateaus) < 5
    assert correlation[:, 0].min() > 0.985
    assert "rebinned" in slices.notices[0]


def test_a_helix_with_a_flying_spot_and_a_step_and_shoot_scan():
    angles = turn(180, turns=3)
    spots = np.arange(len(angles)) % 2
    table = angles / (2 * np.pi) * 14
    helix = fan_scan(angles=angles, table_z=table, rows=16, spot_z=0.6 - 1.2 * spots, spot_angle=0.004 * spots)
    assert errors(to_slices(helix), 3.0)[0].max() < 20
    steps = np.repeat([-6.0, 0.0, 6.0], 360)
    positions = fan_scan(angles=np.tile(turn(360), 3), table_z=steps, isocentre_mm=(0.0, 0.0, 0.0))
    slices = to_slices(positions)
    assert slices.positions_mm == pytest.approx((-6, 0, 6))
    assert errors(slices)[0].max() < 10


def test_the_curved_detector_operator_against_the_closed_form():
    slices = to_slices(fan_scan(angles=turn(24), columns=700, column_pitch=1.2))
    scan = slices.on_grid((512, 512), 0.7, (0.0, 0.0))
    image = torch.from_numpy(slice_image(BODY, 0.0, (512, 512), 0.7)).float()[None, None]
    projected = CTOperator(scan).forward(image)[0].numpy()
    exact = slices.line_integrals[0] / MU_WATER
    assert np.linalg.norm(projected - exact) / np.linalg.norm(exact) < 0.013


def test_masked_elements_may_hold_anything():
    scan = fan_scan(angles=turn(180), rows=2)
    weights = np.ones_like(scan.line_integrals)
    weights[:, :, 70] = 0
    weights[:, 1, 130:132] = 0
    rubbish = np.where(weights > 0, scan.line_integrals, 1e6)
    clean, dirty = (
        to_slices(dataclasses.replace(scan, line_integrals=data.astype(np.float32), weights=weights))
        for data in (scan.line_integrals, rubbish)
    )
    np.testing.assert_array_equal(clean.line_integrals, dirty.line_integrals)
    np.testing.assert_array_equal(reconstruct(clean, GRID).hu, reconstruct(dirty, GRID).hu)
    assert errors(dirty)[0].max() < 20


def test_the_isocentre_is_where_the_patient_coordinates_say():
    slices = to_slices(fan_scan(angles=turn(360), isocentre_mm=(30.0, -20.0, 500.0)))
    assert slices.positions_mm == pytest.approx((500.0,))
    volume = reconstruct(slices)
    dense = np.argwhere(volume.hu[0] > 400)[:, ::-1]
    spine = volume.geometry.to_lps(np.c_[dense, np.zeros(len(dense))])[:, :2].mean(axis=0)
    assert spine == pytest.approx((30 + 4, -20 + 70), abs=4)


def test_rays_behind_which_nothing_arrives_count_for_nothing():
    """Made in Python, where no reader looks at the values; metal without noise has such line integrals."""
    scan = dataclasses.replace(fan_scan(angles=turn(12)), weights=None, electronic_sigma=0.0)
    scan.line_integrals[3, 0, 7] = 200.0
    weights, _ = known_or_estimated_weights(scan)
    assert np.isfinite(weights).all()
    assert weights[3, 0, 7] == 0


def test_noise_is_estimated_where_the_file_is_silent():
    scan = fan_scan(angles=turn(180), i0=None)
    rng = np.random.default_rng(3)
    counts = rng.poisson(4e4 * np.exp(-scan.line_integrals))
    noisy = dataclasses.replace(scan, line_integrals=-np.log(np.maximum(counts, 1) / 4e4).astype(np.float32))
    slices = to_slices(noisy)
    estimate = np.median(slices.weights * np.exp(slices.line_integrals))
    assert estimate == pytest.approx(4e4, rel=0.3)
    assert "estimated" in slices.notices[0]


@pytest.mark.parametrize(
    ("projections", "words"),
    [
        (lambda: fan_scan(angles=turn(36), rows=64), "cone beam.*Reconstruct the projections first"),
        (lambda: fan_scan(angles=turn(36), rows=200, table_z=np.linspace(0, 100, 36)), "too wide to rebin"),
        (lambda: fan_scan(angles=turn(36, turns=3), rows=1, table_z=np.linspace(0, 30, 108)), "too few to rebin"),
        (lambda: fan_scan(angles=turn(36), rows=8, table_z=np.linspace(0, 30, 36)), "no slice .* full turn"),
        (lambda: tilted(fan_scan(angles=turn(36))), "tilted gantry"),
        (lambda: shifted(fan_scan(angles=turn(36))), "does not circle"),
        (
            lambda: fan_scan(
                angles=np.r_[turn(36, turns=0.5), 1 + turn(36, turns=0.5)], table_z=np.repeat([0, 9], 18)
            ),
            "not measured at the same angles",
        ),
        (
            lambda: dataclasses.replace(fan_scan(angles=turn(36)), weights=np.zeros((36, 1, 220), np.float32)),
            "no measured",
        ),
    ],
    ids=["cone", "wide helix", "single row helix", "short helix", "tilt", "centre", "angles differ", "all masked"],
)
def test_what_cannot_be_used_is_refused_with_a_reason(projections, words):
    with pytest.raises(InputError, match=words):
        to_slices(projections())


def tilted(scan):
    v = np.tile([0.0, 0.26, 0.966], (scan.trajectory.views, 1))
    return dataclasses.replace(scan, trajectory=dataclasses.replace(scan.trajectory, det_v=v))


def shifted(scan):
    source = scan.trajectory.source_mm + np.array([60.0, 0, 0])
    return dataclasses.replace(scan, trajectory=dataclasses.replace(scan.trajectory, source_mm=source))
