"""Fluid on the back of the lung and metal with its streaks: size, place, density and reach."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import ndimage

from klip_engine.evaluation import insert, insert_at, lesion_kind, lesion_mask
from klip_engine.evaluation.shapes import Crescent, Pose, coverage
from klip_engine.volume import CTVolume, Geometry
from tests.evaluation.conftest import NOISE_HU, rotation, uniform_volume
from tests.evaluation.test_insertion import counted_coverage

SIZE = (44.0, 12.0, 30.0)
CENTRE = (-20.0, 30.0, 400.0)
GRIDS = {
    "fine": ((1.0, 1.0, 1.0), np.eye(3)),
    "thick": ((0.8, 0.8, 3.0), np.eye(3)),
    "oblique": ((1.2, 0.9, 2.5), rotation((0.3, 1.0, -0.4), 35.0)),
}


def voxel_ml(geometry: Geometry) -> float:
    return float(np.prod(geometry.spacing)) / 1000.0


@pytest.mark.parametrize("grid", GRIDS)
def test_a_crescent_has_the_same_volume_and_thickness_in_millimetres_on_every_grid(grid):
    volume = uniform_volume(*GRIDS[grid], hu=-860.0)
    inserted = insert_at(volume, "effusion", CENTRE, diameters_mm=SIZE, contrast_hu=870.0)
    # thickness T (1 - s^2)(1 - z^2) over width x length: integral 4/9 of the box; up to 1 mm more lies in the wall
    assert inserted.record.volume_ml == pytest.approx(4 / 9 * np.prod(SIZE) / 1000)
    _, weight = coverage(Crescent(SIZE), Pose(CENTRE), volume.geometry)
    whole = weight.sum() * voxel_ml(volume.geometry)
    assert inserted.record.volume_ml < whole < inserted.record.volume_ml + 2 * SIZE[0] * SIZE[2] / 1000
    points = volume.geometry.to_lps(np.argwhere(inserted.mask)[:, ::-1]) - CENTRE
    middle = points[(np.abs(points[:, 0]) < 2) & (np.abs(points[:, 2]) < 2)]
    spread = max(volume.geometry.spacing)
    assert np.ptp(middle[:, 1]) == pytest.approx(SIZE[1] + Crescent.OVERLAP_MM, abs=1.5 * spread)
    assert np.ptp(points[:, 0]) <= SIZE[0]
    assert np.ptp(points[:, 2]) <= SIZE[2] + spread
    np.testing.assert_array_equal(lesion_mask(inserted.record, volume.geometry), inserted.mask)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_coverage_of_a_layer_on_a_steep_wall_counts_points_in_every_voxel(grid):
    geometry = uniform_volume(*GRIDS[grid]).geometry
    wall = np.round(np.random.default_rng(0).uniform(-9.0, 6.0, (7, 11)), 2)
    shape = Crescent((22.0, 6.0, 15.0), tuple(map(tuple, wall.tolist())))
    pose = Pose(CENTRE, tuple(rotation((0.2, 0.1, 1.0), 20.0).ravel()))
    box, weight = coverage(shape, pose, geometry)
    np.testing.assert_array_equal(counted_coverage(shape, pose, geometry, box), weight)
    assert weight.any()


def test_an_effusion_lies_on_the_back_wall_of_a_lung_and_nowhere_else(torso):
    tissue = lesion_kind("effusion").tissue(torso)
    for seed in range(4):
        inserted = insert(
            torso, "effusion", np.random.default_rng(seed), tissue=tissue, diameters_mm=(50.0, 14.0, 24.0)
        )
        assert (torso.hu[inserted.mask] < -500).mean() > 0.75  # the rest is the 1 mm into the wall
        for z, y, x in np.argwhere(inserted.mask)[::17]:
            behind = torso.hu[z, y:, x]
            assert (behind[: round(16 / 2)] > -200).any()  # the wall is at most its thickness away
        density = inserted.record.background_hu + inserted.record.contrast_hu
        assert 0.0 <= density <= 20.0
        lung = ndimage.binary_erosion(inserted.mask, np.ones((1, 3, 3))) & (torso.hu < -500)
        assert np.median(inserted.volume.hu[lung]) == pytest.approx(density, abs=6.0)
        assert inserted.volume.hu[lung].std() < 2.5 * NOISE_HU
        first, last = inserted.record.slice_range
        assert last - first >= 4
        other = Geometry((200, 150, 40), (1.6, 1.6, 2.0), torso.geometry.origin)
        assert lesion_mask(inserted.record, other).sum() * voxel_ml(other) == pytest.approx(
            inserted.mask.sum() * voxel_ml(torso.geometry), rel=0.1
        )
        json.dumps(asdict(inserted.record))


def test_an_effusion_of_a_patient_turned_over_in_the_array_still_lies_on_the_patients_back(torso):
    flipped = CTVolume(
        np.ascontiguousarray(torso.hu[:, ::-1]),
        Geometry(
            torso.geometry.size,
            torso.geometry.spacing,
            (-159.0, -119.0 + 2.0 * 119, -300.0),
            (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
        ),
    )
    here = insert(torso, "effusion", np.random.default_rng(3), diameters_mm=(50.0, 14.0, 24.0))
    there = insert(flipped, "effusion", np.random.default_rng(3), diameters_mm=(50.0, 14.0, 24.0))
    assert there.record.centre_lps_mm[1] > 0
    assert here.record.centre_lps_mm[1] == pytest.approx(there.record.centre_lps_mm[1], abs=25)


def test_metal_is_small_bright_and_streaks_over_its_slices_alone(torso):
    inserted = insert(torso, "metal", np.random.default_rng(2))
    record = inserted.record
    assert all(3.0 <= d <= 8.0 for d in record.diameters_mm)
    assert record.contrast_hu == 2000.0
    change = inserted.volume.hu - torso.hu
    k = int(inserted.mask.sum(axis=(1, 2)).argmax())
    assert change[inserted.mask].max() == pytest.approx(2000.0, abs=150.0)
    rows, columns = np.mgrid[: torso.hu.shape[1], : torso.hu.shape[2]]
    _, y, x = np.argwhere(inserted.mask).mean(axis=0)
    away = np.hypot(rows - y, columns - x) * 2.0 > 20.0
    body = torso.hu[k] > -300
    assert change[k][away & body].std() > 1.0
    near = ~away & body & ~inserted.mask[k] & (np.hypot(rows - y, columns - x) * 2.0 > 8.0)
    assert change[k][near].std() > change[k][away & body].std()  # streaks fade with the distance
    touched = np.flatnonzero(np.abs(change).max(axis=(1, 2)) > 0)
    assert touched.min() >= record.slice_range[0] - 1
    assert touched.max() <= record.slice_range[1] + 1
    assert inserted.volume.hu.min() >= min(torso.hu.min(), -1000.0)


def test_the_size_of_metal_does_not_depend_on_the_grid():
    diameters = (8.0, 7.0, 6.5)
    for spacing, direction in GRIDS.values():
        volume = uniform_volume(spacing, direction)
        inserted = insert_at(volume, "metal", CENTRE, diameters_mm=diameters, rng=np.random.default_rng(0))
        expected = np.pi / 6 * np.prod(diameters) / 1000
        assert inserted.mask.sum() * voxel_ml(volume.geometry) == pytest.approx(expected, rel=0.15)


def test_more_metal_makes_stronger_streaks_and_the_same_seed_the_same_ones(torso):
    def streaks(diameter: float, seed: int = 0) -> np.ndarray:
        inserted = insert_at(
            torso,
            "metal",
            (-40.0, 0.0, -285.0),
            diameters_mm=(diameter,) * 3,
            rng=np.random.default_rng(seed),
        )
        change = inserted.volume.hu - torso.hu
        return change[5][(torso.hu[5] > -300) & ~inserted.mask[5]]

    assert streaks(7.0).std() > streaks(3.5).std()
    np.testing.assert_array_equal(streaks(5.0), streaks(5.0))
    assert not np.array_equal(streaks(5.0), streaks(5.0, seed=1))  # photon noise
