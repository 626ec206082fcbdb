"""The working grid and the way back, against SimpleITK's own physical points and analytic fields."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from klip_engine.body import body_mask
from klip_engine.errors import InputError
from klip_engine.volume import CTVolume, Geometry
from klip_engine.working_grid import WorkingGrid, from_working_grid, labels_from_working_grid, to_working_grid
from tests.conftest import torso

GRID = WorkingGrid((96, 120), 4.0, 3.0)


def _rotation(axis: int, degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    matrix = np.eye(3)
    i, j = [k for k in range(3) if k != axis]
    matrix[[i, j], [i, j]] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


OBLIQUE = Geometry(
    (90, 80, 24), (4.1, 4.3, 5.7), (12.0, -30.0, 77.0), tuple((_rotation(0, 12) @ _rotation(2, -9)).ravel())
)


def _field(geometry: Geometry, centre_lps: np.ndarray) -> np.ndarray:
    """A body-sized ellipsoid of soft tissue whose HU varies linearly with the position in the patient."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in geometry.size], indexing="ij"), axis=-1)
    offset = geometry.to_lps(index) - centre_lps
    hu = 40 + offset @ np.array([0.5, -0.3, 0.4])
    hu[((offset / np.array([140, 120, 200])) ** 2).sum(axis=-1) > 1] = -1000
    return hu.T.astype(np.float32)


def test_geometry_agrees_with_simpleitk():
    image = OBLIQUE.empty_image()
    for index in [(0, 0, 0), (89, 0, 3), (5, 70, 23)]:
        point = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(OBLIQUE.to_lps(index), point, atol=1e-9)
        np.testing.assert_allclose(OBLIQUE.to_index(point), index, atol=1e-9)
    assert Geometry.of(image) == OBLIQUE


def test_an_axial_volume_keeps_its_slices():
    hu = torso(7)
    volume = CTVolume(hu, Geometry((120, 96, 7), (4.0, 4.0, 5.0), (-240, -190, 33)))
    working = to_working_grid(volume, GRID, mask_table=False)
    assert working.source_slices == tuple((k, k + 1) for k in range(7))
    np.testing.assert_allclose([working.geometry.origin[2], working.geometry.spacing[2]], [33, 5])
    assert working.hu.shape == (7, 96, 120)
    assert 0.15 < working.body.mean() < 0.6


def test_thin_slices_are_averaged_in_groups_and_a_flipped_series_is_turned_to_the_head():
    hu = np.repeat(torso(1), 9, axis=0) + np.arange(9, dtype=np.float32)[:, None, None]
    down = Geometry((120, 96, 9), (4.0, 4.0, 1.0), (0, 0, 50), (1, 0, 0, 0, -1, 0, 0, 0, -1))
    working = to_working_grid(CTVolume(hu, down), GRID)
    assert working.source_slices == ((6, 9), (3, 6), (0, 3))
    assert working.geometry.spacing[2] == pytest.approx(3.0)
    assert working.geometry.origin[2] == pytest.approx(50 - 7)
    middle = working.hu[:, working.body[0]].mean(axis=1)
    np.testing.assert_allclose(np.diff(middle), [-3, -3], atol=0.01)


@pytest.mark.parametrize("sign", [1, -1])
def test_every_source_slice_belongs_to_a_working_slice(sign):
    hu = np.repeat(torso(1), 8, axis=0) + 10 * np.arange(8, dtype=np.float32)[:, None, None]
    geometry = Geometry((120, 96, 8), (4.0, 4.0, 1.0), direction=(1, 0, 0, 0, sign, 0, 0, 0, sign))
    working = to_working_grid(CTVolume(hu, geometry), GRID)
    assert sorted(working.source_slices) == [(0, 3), (3, 6), (6, 8)]
    middle = working.hu[:, working.body[0]].mean(axis=1)
    np.testing.assert_allclose(np.sort(middle) - middle.min(), [0, 30, 55], atol=0.1)
    back = from_working_grid(np.ones(working.hu.shape, np.uint16), working.geometry, geometry, nearest=True)
    assert back[:, 48, 60].all()


@pytest.mark.parametrize("degrees", [0.0, 90.0])
def test_hu_lies_where_it_lay_in_the_patient(degrees):
    """A field linear in LPS must be linear in LPS on the working grid, for oblique and for sagittal slices."""
    direction = _rotation(1, degrees) @ np.asarray(OBLIQUE.direction).reshape(3, 3)
    geometry = Geometry(OBLIQUE.size, OBLIQUE.spacing, OBLIQUE.origin, tuple(direction.ravel()))
    centre = geometry.to_lps((45, 40, 12))
    working = to_working_grid(CTVolume(_field(geometry, centre), geometry), GRID)
    index = np.argwhere(working.body)[:, ::-1]
    offset = working.geometry.to_lps(index) - centre
    deep = ((offset / np.array([140, 120, 200])) ** 2).sum(axis=1) < 0.6
    source = geometry.to_index(working.geometry.to_lps(index))
    inside = deep & ((source > 1) & (source < np.array(geometry.size) - 2)).all(axis=1)
    assert inside.sum() > 500
    expected = 40 + offset[inside] @ np.array([0.5, -0.3, 0.4])
    values = working.hu[tuple(index[inside, ::-1].T)]
    np.testing.assert_allclose(values, expected, atol=0.05)


def test_the_way_back_restores_a_linear_field_voxel_for_voxel():
    centre = OBLIQUE.to_lps((45, 40, 12))
    working = to_working_grid(CTVolume(_field(OBLIQUE, centre), OBLIQUE), GRID)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in working.geometry.size], indexing="ij"), axis=-1)
    ramp = (working.geometry.to_lps(index) @ np.array([1.0, 2.0, -1.0])).T.astype(np.float32)
    back = from_working_grid(ramp, working.geometry, OBLIQUE, outside=-1e6)
    target = np.stack(np.meshgrid(*[np.arange(n) for n in OBLIQUE.size], indexing="ij"), axis=-1)
    points = OBLIQUE.to_lps(target)
    position = working.geometry.to_index(points)
    inner = ((position >= 0) & (position <= np.array(working.geometry.size) - 1)).all(axis=-1)
    expected = points @ np.array([1.0, 2.0, -1.0])
    np.testing.assert_allclose(back.T[inner], expected[inner], atol=0.01)
    assert inner.mean() > 0.3


def test_labels_come_back_by_nearest_neighbour_also_for_a_single_slice():
    geometry = Geometry((120, 96, 1), (4.0, 4.0, 5.0))
    working = to_working_grid(CTVolume(torso(1), geometry), GRID)
    labels = np.zeros(working.hu.shape, np.uint16)
    labels[0, 40:50, 60:75] = 7
    back = from_working_grid(labels, working.geometry, geometry, nearest=True)
    assert back.shape == (1, 96, 120)
    assert back.dtype == np.uint16
    assert set(np.unique(back)) == {0, 7}
    assert abs(int((back == 7).sum()) - 150) <= 25


def test_the_table_is_cut_off_and_the_lungs_belong_to_the_body():
    hu = torso(5)
    hu[:, 88:90, 10:110] = 200  # a thin table below the patient
    body = body_mask(hu, 4.0)
    assert not body[:, 88:90].any()
    assert body[:, 48, 60].all()
    assert body[:, 48, 38].all(), "the lung is part of the body"


def test_a_body_larger_than_the_grid_is_reported():
    small = WorkingGrid((40, 48), 4.0, 3.0)
    working = to_working_grid(CTVolume(torso(3), Geometry((120, 96, 3), (4.0, 4.0, 5.0))), small)
    assert working.cut_off > 0.3


def test_nothing_dense_is_no_body():
    with pytest.raises(InputError, match="no body"):
        to_working_grid(CTVolume(np.full((3, 64, 64), -1000, np.float32), Geometry((64, 64, 3), (4, 4, 4))), GRID)


def test_an_array_that_does_not_fit_its_geometry_is_refused():
    with pytest.raises(InputError, match="does not match"):
        CTVolume(np.zeros((3, 4, 5), np.float32), Geometry((5, 4, 2), (1, 1, 1)))


def test_averaging_keeps_the_mean_and_lowers_the_noise():
    """A working pixel is an area mean: the noise of 1 mm pixels falls, the mean of a flat region stays."""
    rng = np.random.default_rng(0)
    hu = rng.normal(50, 40, (2, 300, 300)).astype(np.float32)
    volume = CTVolume(hu, Geometry((300, 300, 2), (1.0, 1.0, 5.0)))
    working = to_working_grid(volume, WorkingGrid((60, 60), 3.0, 3.0))
    inner = working.hu[:, 10:50, 10:50]
    assert float(inner.mean()) == pytest.approx(50, abs=1.5)
    assert 10 < float(inner.std()) < 18  # 40 / 3 = 13.3 for a 3 x 3 mean of white noise


def test_simpleitk_reads_the_same_geometry_back(tmp_path):
    path = tmp_path / "oblique.nrrd"
    sitk.WriteImage(OBLIQUE.image(np.zeros(OBLIQUE.size[::-1], np.int16)), path)
    read = Geometry.of(sitk.ReadImage(path))
    np.testing.assert_allclose(read.matrix, OBLIQUE.matrix, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("slices", [1, 12])
def test_labels_brought_back_where_they_are_are_those_brought_back_everywhere(seed, slices):
    rng = np.random.default_rng(seed)
    working = Geometry((40, 36, slices), (9.7, 9.7, 11.3), (-30.1, -160.3, 20.7))
    labels = np.zeros(working.size[::-1], np.uint16)
    for label in range(1, seed + 1):  # none with seed 0; some at the border
        x, y, z = (int(rng.integers(n)) for n in working.size)
        labels[z : z + 2, y : y + 3, x : x + 4] = label
    np.testing.assert_array_equal(
        labels_from_working_grid(labels, working, OBLIQUE),
        from_working_grid(labels, working, OBLIQUE, nearest=True),
    )


def test_labels_outside_the_target_are_nowhere():
    labels = np.ones((2, 3, 4), np.uint16)
    far = Geometry((4, 3, 2), (3.0, 3.0, 3.0), (5000.0, 0.0, 0.0))
    assert not labels_from_working_grid(labels, far, OBLIQUE).any()
