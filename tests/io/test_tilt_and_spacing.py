"""Sheared and uneven stacks of analytic objects come back on a rectangular grid, in place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from scipy.ndimage import binary_erosion

from klip_engine.errors import InputError
from klip_engine.io import LoadedCT, read_ct

from .dicom_files import AXIAL, normal_of, oblique, straight_positions, write_series

PIXEL_MM, GAP_MM, COUNT = 2.0, 3.0, 16


def smooth_hu(lps: np.ndarray) -> np.ndarray:
    """HU of a smooth body with an off-centre lump, for LPS points in mm [..., 3]."""
    body = 900 * np.exp(-((lps[..., 0] / 45) ** 2) - (lps[..., 1] / 35) ** 2 - (lps[..., 2] / 60) ** 2)
    lump = 600 * np.exp(-(((lps - np.array([15.0, 10.0, 8.0])) / 14) ** 2).sum(axis=-1))
    return -1000 + body + lump


def sampled(positions: np.ndarray, orientation: tuple[float, ...]) -> np.ndarray:
    """The analytic object on slices of 64 x 72 pixels at these positions, HU [z, y, x]."""
    y, x = np.mgrid[:64, :72] * PIXEL_MM
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    points = positions[:, None, None] + x[..., None] * row + y[..., None] * column
    return smooth_hu(points)


def error_against_object(loaded: LoadedCT) -> float:
    """Largest difference in HU, without the outermost pixel of the field of view (half padding)."""
    geometry = loaded.volume.geometry
    z, y, x = np.indices(loaded.volume.hu.shape)
    expected = smooth_hu(geometry.to_lps(np.stack([x, y, z], axis=-1)))
    seen = binary_erosion(loaded.volume.hu > -1023, np.ones((1, 3, 3)), border_value=0)
    assert seen.mean() > 0.6
    return float(np.abs(loaded.volume.hu - expected)[seen].max())


@pytest.mark.parametrize("orientation", [AXIAL, oblique(15.0)])
@pytest.mark.parametrize("tilt", [-18.0, 6.0])
def test_gantry_tilt_is_corrected(tmp_path: Path, orientation: tuple[float, ...], tilt: float) -> None:
    positions = straight_positions(COUNT, GAP_MM, orientation, (-70, -62, -24))
    shear = np.tan(np.radians(tilt)) * GAP_MM * np.arange(COUNT)
    positions += np.outer(shear, orientation[3:])

    def declare(dataset: Dataset, k: int) -> None:
        dataset.GantryDetectorTilt = tilt

    write_series(
        tmp_path,
        sampled(positions, orientation),
        positions,
        orientation=orientation,
        pixel_mm=(PIXEL_MM, PIXEL_MM),
        edit=declare,
    )
    loaded = read_ct(tmp_path)
    assert loaded.volume.geometry.slice_normal == pytest.approx(normal_of(orientation), abs=1e-6)
    assert f"gantry tilt of {abs(tilt):.1f} degrees" in loaded.notices[0]
    assert loaded.volume.geometry.size[1] > 64  # nothing that was scanned is cut off
    assert error_against_object(loaded) < 8


def test_declared_tilt_that_the_positions_do_not_show_is_refused(tmp_path: Path) -> None:
    positions = straight_positions(COUNT, GAP_MM, AXIAL, (-70, -62, -24))

    def declare(dataset: Dataset, k: int) -> None:
        dataset.GantryDetectorTilt = 12

    write_series(tmp_path, sampled(positions, AXIAL), positions, edit=declare)
    with pytest.raises(InputError, match=r"gantry tilt of 12\.0 degrees.*cannot be corrected"):
        read_ct(tmp_path)


def test_tilt_in_an_oblique_header_without_shear_is_a_plain_oblique_series(tmp_path: Path) -> None:
    positions = straight_positions(COUNT, GAP_MM, oblique(10.0), (-70, -62, -24))
    write_series(tmp_path, sampled(positions, oblique(10.0)), positions, orientation=oblique(10.0))
    assert read_ct(tmp_path).notices == ()


def test_slices_off_the_line_are_refused(tmp_path: Path) -> None:
    positions = straight_positions(COUNT, GAP_MM, AXIAL, (-70, -62, -24))
    positions[7, 0] += 6
    write_series(tmp_path, sampled(positions, AXIAL), positions)
    with pytest.raises(InputError, match=r"straight line: slice 8 of 16"):
        read_ct(tmp_path)


def test_slightly_uneven_spacing_is_resampled(tmp_path: Path) -> None:
    positions = straight_positions(COUNT, GAP_MM, AXIAL, (-70, -62, -24))
    positions[:, 2] += 0.28 * np.sin(np.arange(COUNT))
    hu = sampled(positions, AXIAL)
    write_series(tmp_path, hu, positions, pixel_mm=(PIXEL_MM, PIXEL_MM))
    loaded = read_ct(tmp_path)
    assert "not evenly spaced" in loaded.notices[0]
    spacing = (positions[-1, 2] - positions[0, 2]) / (COUNT - 1)
    assert loaded.volume.geometry.spacing[2] == pytest.approx(spacing)
    assert error_against_object(loaded) < 4
    straight = straight_positions(COUNT, spacing, AXIAL, tuple(positions[0]))
    assert np.abs(hu - sampled(straight, AXIAL)).max() > 2 * error_against_object(loaded)


def test_positions_rounded_by_the_scanner_are_even(tmp_path: Path) -> None:
    positions = np.round(straight_positions(COUNT, 0.625, AXIAL, (-70, -62, -24)), 2)
    write_series(tmp_path, sampled(positions, AXIAL), positions)
    assert read_ct(tmp_path).notices == ()


def test_uneven_spacing_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    positions = straight_positions(COUNT, GAP_MM, AXIAL, (-70, -62, -24))
    positions[5:, 2] += 0.9
    write_series(tmp_path, sampled(positions, AXIAL), positions)
    with pytest.raises(InputError, match=r"unevenly spaced between slices 5 and 6 of 16.*3\.90 mm"):
        read_ct(tmp_path)
