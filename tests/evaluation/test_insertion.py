"""Inserted lesions: their size against closed forms, their contrast, texture and place."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from klip_engine.errors import InputError, UsageError
from klip_engine.evaluation import LESION_KINDS, insert, insert_at, lesion_kind, lesion_mask
from klip_engine.evaluation.shapes import Box, Ellipsoid, Pose, Shape, StarPrism, coverage
from klip_engine.evaluation.tissue import Tissues
from klip_engine.volume import CTVolume, Geometry
from tests.evaluation.conftest import NOISE_HU, rotation, uniform_volume

CENTRE = (-17.3, 28.1, 402.2)
TILTED = rotation((1.0, -2.0, 0.5), 50.0)
GRIDS = {
    "isotropic": ((1.0, 1.0, 1.0), np.eye(3)),
    "anisotropic": ((0.8, 0.8, 3.0), np.eye(3)),
    "oblique": ((1.2, 0.9, 2.5), rotation((0.3, 1.0, -0.4), 35.0)),
    "upside down": ((1.0, 1.0, 2.0), np.diag([1.0, -1.0, -1.0])),
}


@pytest.fixture(params=GRIDS)
def grid(request: pytest.FixtureRequest) -> CTVolume:
    return uniform_volume(*GRIDS[request.param])


def voxel_ml(geometry: Geometry) -> float:
    return math.prod(geometry.spacing) / 1000.0


def counted_coverage(shape: Shape, pose: Pose, geometry: Geometry, box: Box) -> np.ndarray:
    """The share of 4 x 4 x 4 points of every voxel of the box that lie in the shape."""
    k, j, i = np.meshgrid(*(np.arange(part.start, part.stop) for part in box), indexing="ij")
    hits = np.zeros(k.shape, dtype=np.float32)
    for offset in itertools.product((-0.375, -0.125, 0.125, 0.375), repeat=3):
        points = geometry.to_lps(np.stack([i, j, k], axis=-1) + offset) - pose.centre_lps_mm
        hits += shape.contains(points @ np.linalg.inv(pose.axes).T)
    return hits / 64


def points_of(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    return geometry.to_lps(np.argwhere(mask)[:, ::-1])


def test_an_ellipsoid_has_its_volume_position_and_diameters_in_millimetres_on_any_grid(grid):
    diameters = (26.0, 20.0, 15.0)
    inserted = insert_at(grid, "tumor", CENTRE, diameters_mm=diameters, axes_lps=TILTED.ravel())
    closed_form_ml = math.pi / 6 * math.prod(diameters) / 1000.0
    assert inserted.record.volume_ml == pytest.approx(closed_form_ml)
    assert inserted.mask.sum() * voxel_ml(grid.geometry) == pytest.approx(closed_form_ml, rel=0.03)
    points = points_of(inserted.mask, grid.geometry)
    np.testing.assert_allclose(points.mean(axis=0), CENTRE, atol=0.25)
    along_axes = (points - CENTRE) @ TILTED
    # a solid ellipsoid of semi-axis a has variance a^2 / 5 along it
    np.testing.assert_allclose(2 * np.sqrt(5 * along_axes.var(axis=0)), diameters, atol=1.0)


def test_a_star_has_the_area_of_a_pentagram_times_its_thickness(grid):
    width, thickness = 36.0, 18.0
    inserted = insert_at(grid, "star", CENTRE, diameters_mm=(width, width, thickness))
    golden = (1 + math.sqrt(5)) / 2
    radii = np.where(np.arange(10) % 2 == 0, 1.0, golden**-2) * width / 2
    x, y = radii * np.sin(np.arange(10) * math.pi / 5), radii * np.cos(np.arange(10) * math.pi / 5)
    area = 0.5 * abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
    assert inserted.record.volume_ml == pytest.approx(area * thickness / 1000.0)
    assert inserted.mask.sum() * voxel_ml(grid.geometry) == pytest.approx(area * thickness / 1000.0, rel=0.12)
    _, weight = coverage(
        StarPrism((width, width, thickness)),
        Pose(inserted.record.centre_lps_mm, inserted.record.axes_lps),
        grid.geometry,
    )
    assert weight.sum() * voxel_ml(grid.geometry) == pytest.approx(area * thickness / 1000.0, rel=0.01)
    height = (points_of(inserted.mask, grid.geometry) - CENTRE) @ grid.geometry.slice_normal
    assert np.abs(height).max() <= thickness / 2 + grid.geometry.spacing[2] / 2


def test_a_star_holds_the_points_of_the_polygon_and_no_others():
    path = pytest.importorskip("matplotlib.path")
    golden = (1 + math.sqrt(5)) / 2
    radii = np.where(np.arange(10) % 2 == 0, 1.0, golden**-2) * 15.0
    corners = np.stack(
        [radii * np.sin(np.arange(10) * math.pi / 5), radii * np.cos(np.arange(10) * math.pi / 5)], axis=1
    )
    points = np.random.default_rng(0).uniform(-16.0, 16.0, (4000, 2))
    inside = StarPrism((30.0, 30.0, 5.0)).contains(np.pad(points, ((0, 0), (0, 1))))
    np.testing.assert_array_equal(inside, path.Path(corners).contains_points(points))


@pytest.mark.parametrize("contrast", [-60.0, 75.0])
def test_the_contrast_inside_a_tumour_is_the_one_asked_for(grid, contrast):
    noisy = CTVolume(
        grid.hu + np.random.default_rng(3).normal(0, 15, grid.hu.shape).astype(np.float32), grid.geometry
    )
    inserted = insert_at(noisy, "tumor", CENTRE, diameters_mm=(24.0, 24.0, 24.0), contrast_hu=contrast)
    core = lesion_mask(insert_at(noisy, "tumor", CENTRE, diameters_mm=(15.0, 15.0, 15.0)).record, noisy.geometry)
    change = inserted.volume.hu - noisy.hu
    assert change[core].mean() == pytest.approx(contrast, abs=1.0)
    assert inserted.volume.hu[core].std() == pytest.approx(noisy.hu[core].std(), rel=1e-3)
    distance = np.linalg.norm(points_of(np.ones_like(core), noisy.geometry) - CENTRE, axis=1).reshape(core.shape)
    assert not change[distance > 12.0 + np.linalg.norm(noisy.geometry.spacing)].any()


def test_an_edge_falls_over_about_one_pixel():
    volume = uniform_volume((1.0, 1.0, 1.0))
    inserted = insert_at(
        volume, "tumor", CENTRE, diameters_mm=(20.0,) * 3, contrast_hu=-100.0, axes_lps=np.eye(3).ravel()
    )
    i, j, k = np.rint(volume.geometry.to_index(CENTRE)).astype(int)
    profile = (inserted.volume.hu - volume.hu)[k, j] / -100.0
    assert (np.diff(profile[: i + 1]) >= 0).all()
    assert 1 <= ((profile[:i] > 0.02) & (profile[:i] < 0.98)).sum() <= 2


def test_a_nodule_has_soft_tissue_density_and_keeps_the_noise_of_the_lung_but_not_its_vessels():
    volume = uniform_volume((1.5, 1.5, 2.0), hu=-860.0, noise_hu=18.0)
    hu = volume.hu.copy()
    i, j, _ = np.rint(volume.geometry.to_index(CENTRE)).astype(int)
    hu[:, j + 3 : j + 5, i : i + 2] = 40.0  # a vessel along z
    volume = CTVolume(hu, volume.geometry)
    inserted = insert_at(volume, "nodule", CENTRE, diameters_mm=(20.0, 20.0, 20.0), rng=np.random.default_rng(5))
    core = lesion_mask(insert_at(volume, "nodule", CENTRE, diameters_mm=(15.0, 15.0, 15.0)).record, volume.geometry)
    lung = core & (volume.hu < -500)
    density = inserted.record.background_hu + inserted.record.contrast_hu
    assert 10.0 <= density <= 50.0
    assert np.median(inserted.volume.hu[core]) == pytest.approx(density, abs=5.0)
    assert inserted.volume.hu[lung].std() == pytest.approx(18.0, rel=0.15)
    assert np.corrcoef(inserted.volume.hu[lung], volume.hu[lung])[0, 1] > 0.95
    assert inserted.volume.hu[core].max() < 120.0


def test_the_record_alone_gives_the_mask_back_and_the_same_lesion_on_another_grid():
    here, there = uniform_volume(*GRIDS["anisotropic"]), uniform_volume(*GRIDS["oblique"])
    for kind in set(LESION_KINDS) - {"effusion"}:  # wider than these volumes: tests/evaluation/test_lesion_kinds.py
        inserted = insert_at(here, kind, CENTRE, rng=np.random.default_rng(2))
        record = inserted.record
        np.testing.assert_array_equal(lesion_mask(record, here.geometry), inserted.mask)
        assert record.slice_range == tuple(np.flatnonzero(inserted.mask.any(axis=(1, 2)))[[0, -1]])
        again = insert_at(
            there,
            kind,
            CENTRE,
            diameters_mm=record.diameters_mm,
            contrast_hu=record.contrast_hu,
            axes_lps=record.axes_lps,
        )
        np.testing.assert_array_equal(lesion_mask(record, there.geometry), again.mask)
        np.testing.assert_allclose(points_of(again.mask, there.geometry).mean(axis=0), CENTRE, atol=0.4)


def test_a_lesion_thinner_than_the_slices_still_has_a_mask():
    volume = uniform_volume((1.0, 1.0, 10.0), hu=-860.0)
    inserted = insert_at(volume, "nodule", (-20.0, 30.0, 400.0), diameters_mm=(6.0, 6.0, 6.0))
    assert inserted.mask.any()
    assert (inserted.volume.hu - volume.hu).max() < 0.7 * inserted.record.contrast_hu  # partial volume


def test_sizes_and_contrasts_are_drawn_from_the_kinds_range():
    rng = np.random.default_rng(0)
    ranges = {"tumor": (12.0, 30.0), "nodule": (6.0, 20.0), "star": (20.0, 40.0)}
    for name, (smallest, largest) in ranges.items():
        kind = lesion_kind(name)
        drawn = np.array([kind.draw_diameters(rng) for _ in range(300)])
        in_plane = drawn[:, :2] if name == "star" else drawn
        assert in_plane.min() >= smallest
        assert in_plane.max() <= largest
        assert np.ptp(in_plane) > 0.8 * (largest - smallest)
    contrasts = np.array([lesion_kind("tumor").draw_contrast(rng, 100.0) for _ in range(300)])
    assert np.abs(contrasts).min() >= 40.0
    assert np.abs(contrasts).max() <= 80.0
    assert 0.4 < (contrasts > 0).mean() < 0.6
    axes = lesion_kind("tumor").draw_axes(rng, uniform_volume((1.0, 1.0, 1.0)).geometry)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def torso_tissues(torso) -> dict[str, np.ndarray]:
    return {kind: lesion_kind(kind).tissue(torso) for kind in LESION_KINDS}


@pytest.mark.parametrize("seed", range(5))
def test_lesions_lie_in_their_tissue_of_a_synthetic_torso(torso, torso_tissues, seed):
    liver = np.abs(ndimage.gaussian_filter(torso.hu, (0, 2, 2)) - 110.0) < 30.0
    lung = np.abs(ndimage.gaussian_filter(torso.hu, (0, 1, 1)) + 860.0) < 100.0
    for kind, tissue, share in (("tumor", liver, 1.0), ("star", liver, 1.0), ("nodule", lung, 0.9)):
        inserted = insert(torso, kind, np.random.default_rng(seed), tissue=torso_tissues[kind])
        assert tissue[inserted.mask].mean() >= share, kind
        mask_ml = inserted.mask.sum() * voxel_ml(torso.geometry)
        assert mask_ml <= 1.15 * inserted.record.volume_ml
        if kind == "tumor":
            core = inserted.mask & ndimage.binary_erosion(inserted.mask)
            assert inserted.volume.hu[core].std() < 1.5 * NOISE_HU


def test_the_same_seed_gives_the_same_lesion_and_another_seed_another(torso):
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    first, again, other = (insert(torso, "nodule", np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert first.record == again.record
    np.testing.assert_array_equal(first.volume.hu, again.volume.hu)
    assert other.record.centre_lps_mm != first.record.centre_lps_mm
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_the_source_volume_stays_as_it_was(torso):
    before = torso.hu.copy()
    inserted = insert(torso, "star", np.random.default_rng(0))
    np.testing.assert_array_equal(torso.hu, before)
    assert inserted.volume.hu.dtype == np.float32
    assert inserted.volume.geometry == torso.geometry


def test_a_single_slice_takes_a_lesion(torso):
    geometry = Geometry((160, 120, 1), torso.geometry.spacing, torso.geometry.origin)
    inserted = insert(CTVolume(torso.hu[18:19], geometry), "nodule", np.random.default_rng(1))
    assert inserted.record.slice_range == (0, 0)


def test_a_tissue_mask_says_where(torso, torso_tissues):
    left = np.zeros(torso.hu.shape, dtype=bool)
    left[:, :, 80:] = True
    tissue = torso_tissues["nodule"] & left
    for seed in range(4):
        assert insert(torso, "nodule", np.random.default_rng(seed), tissue=tissue).record.centre_lps_mm[0] > 0


def test_no_fitting_place_is_an_input_error_that_says_so(torso):
    air = CTVolume(np.full((8, 40, 40), -1000.0, dtype=np.float32), Geometry((40, 40, 8), (3.0, 3.0, 3.0)))
    for kind in LESION_KINDS:
        with pytest.raises(InputError, match=f"No place for a {kind}"):
            insert(air, kind, np.random.default_rng(0))
    with pytest.raises(InputError, match="150 x 150 x 150 mm"):
        insert(torso, "tumor", np.random.default_rng(0), diameters_mm=(150.0, 150.0, 150.0))


@pytest.mark.parametrize("shape", [Ellipsoid((10.0, 16.0, 7.0)), StarPrism((16.0, 16.0, 6.0))])
def test_the_coverage_counts_64_points_in_every_voxel_and_a_margin_adds_zeros(grid, shape):
    pose = Pose(CENTRE, tuple(TILTED.ravel()))
    box, weight = coverage(shape, pose, grid.geometry)
    wide, padded = coverage(shape, pose, grid.geometry, margin=3)
    np.testing.assert_array_equal(counted_coverage(shape, pose, grid.geometry, wide), padded)
    assert [part.stop - part.start for part in wide] == [part.stop - part.start + 6 for part in box]
    np.testing.assert_array_equal(padded[3:-3, 3:-3, 3:-3], weight)
    assert weight.sum() == padded.sum() > 0


def test_a_room_kept_for_many_lesions_gives_the_lesions_of_its_mask(torso):
    tissues = Tissues(torso)
    for kind in LESION_KINDS:
        model = lesion_kind(kind)
        room = model.room(tissues)
        np.testing.assert_array_equal(room.mask, model.tissue(torso))
        for seed in range(2):
            kept, fresh = (
                insert(torso, kind, np.random.default_rng(seed), tissue=tissue) for tissue in (room, room.mask)
            )
            assert kept.record == fresh.record
            np.testing.assert_array_equal(kept.volume.hu, fresh.volume.hu)


def test_tissues_of_some_slices_are_those_of_all_there_and_nothing_elsewhere(torso):
    slices = np.zeros(len(torso.hu), dtype=bool)
    slices[[3, 4, 9, 15, 16, 20]] = True
    whole, some = Tissues(torso), Tissues(torso, slices)
    for kind in LESION_KINDS:
        model = lesion_kind(kind)
        expected = model.room(whole).mask & slices[:, None, None]
        assert expected.any(), kind
        np.testing.assert_array_equal(model.room(some).mask, expected)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda v: insert(v, "meteorite", np.random.default_rng(0)),
        lambda v: insert(v, "tumor", np.random.default_rng(0), diameters_mm=(10.0, -1.0, 10.0)),
        lambda v: insert(v, "tumor", np.random.default_rng(0), tissue=np.ones((1, 1, 1), bool)),
        lambda v: insert_at(v, "tumor", (5000.0, 0.0, 0.0)),
        lambda v: insert_at(v, "tumor", CENTRE, axes_lps=(1.0,) * 9),
        lambda v: insert_at(v, "tumor", CENTRE, diameters_mm=(10.0, math.nan, 10.0)),
    ],
)
def test_a_request_that_makes_no_sense_is_a_usage_error(wrong):
    with pytest.raises(UsageError):
        wrong(uniform_volume((2.0, 2.0, 2.0)))


@pytest.fixture(scope="module")
def real(shared_ct) -> CTVolume:
    """Liver dome and lung bases, 24 slices."""
    image = sitk.ReadImage(str(shared_ct / "series" / "cptac-pda-c3n-00249-chest-abdomen.nrrd"))
    return CTVolume.from_image(image[:, :, 28:52])


def test_lesions_keep_to_their_tissue_in_real_ct(real):
    quiet = ndimage.median_filter(real.hu, size=(1, 3, 3))
    # an opening removes the vessels: what is left is mediastinum, chest wall and liver
    solid = ndimage.binary_opening(quiet > -300.0, np.ones((1, 5, 5)))
    tissues = {kind: lesion_kind(kind).tissue(real) for kind in LESION_KINDS}
    for seed in range(4):
        tumor, star, nodule = (
            insert(real, kind, np.random.default_rng(seed), tissue=tissues[kind])
            for kind in ("tumor", "star", "nodule")
        )
        for inserted in (tumor, star):
            under = quiet[inserted.mask]
            assert ((under > 0.0) & (under < 200.0)).mean() > 0.99
            assert under.std() < 35.0
        assert solid[nodule.mask].mean() < 0.05
        assert np.median(quiet[nodule.mask]) < -600.0
        assert 0.0 < np.percentile(nodule.volume.hu[nodule.mask], 80) < 80.0


def test_a_tumour_keeps_the_texture_of_a_real_liver(real):
    inserted = insert(real, "tumor", np.random.default_rng(7), diameters_mm=(24.0, 24.0, 24.0), contrast_hu=-60.0)
    core = lesion_mask(
        insert_at(real, "tumor", inserted.record.centre_lps_mm, diameters_mm=(15.0,) * 3).record,
        real.geometry,
    )
    assert inserted.volume.hu[core].std() == pytest.approx(real.hu[core].std(), rel=1e-3)
    assert (inserted.volume.hu - real.hu)[core].mean() == pytest.approx(-60.0, abs=1.0)
