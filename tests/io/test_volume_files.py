"""Volume files keep their values and their place, whatever the format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from klip_engine.io import read_ct

from .conftest import oblique_geometry
from .dicom_files import ct_values


@pytest.mark.parametrize("name", ["ct.nrrd", "ct.nhdr", "ct.nii", "ct.nii.gz", "ct.mha", "ct.mhd"])
def test_format_is_read_in_place(tmp_path: Path, name: str) -> None:
    hu = ct_values()
    geometry = oblique_geometry((48, 40, 6), (0.7, 0.9, 2.5))
    sitk.WriteImage(geometry.image(hu), str(tmp_path / name))
    loaded = read_ct(tmp_path / name)
    assert loaded.volume.hu.dtype == np.float32
    assert np.array_equal(loaded.volume.hu, hu)
    # NIfTI stores its affine in single precision
    assert loaded.volume.geometry.matrix == pytest.approx(geometry.matrix, abs=1e-4)
    assert loaded.description["file"] == name
    assert loaded.description["spacing_mm"] == pytest.approx([0.7, 0.9, 2.5], abs=1e-4)


def test_two_dimensional_image_is_one_slice(tmp_path: Path) -> None:
    hu = ct_values((1, 40, 48))
    sitk.WriteImage(sitk.GetImageFromArray(hu[0]), str(tmp_path / "slice.nrrd"))
    loaded = read_ct(tmp_path / "slice.nrrd")
    assert np.array_equal(loaded.volume.hu, hu)


def test_single_time_step_is_a_volume(tmp_path: Path) -> None:
    hu = ct_values()
    image = oblique_geometry((48, 40, 6), (0.7, 0.9, 2.5)).image(hu)
    sitk.WriteImage(sitk.JoinSeries([image]), str(tmp_path / "one.nrrd"))
    loaded = read_ct(tmp_path / "one.nrrd")
    assert np.array_equal(loaded.volume.hu, hu)
    assert loaded.volume.geometry.spacing == pytest.approx((0.7, 0.9, 2.5))
    assert loaded.volume.geometry.direction == pytest.approx(image.GetDirection())


@pytest.mark.parametrize("padding", [-2000, -3024])
def test_padding_outside_the_field_of_view_is_clipped(tmp_path: Path, padding: int) -> None:
    hu = ct_values()
    hu[:, 0] = padding
    sitk.WriteImage(sitk.GetImageFromArray(hu), str(tmp_path / "ct.nrrd"))
    loaded = read_ct(tmp_path / "ct.nrrd").volume.hu
    assert (loaded[:, 0] == -1024).all()
    assert np.array_equal(loaded[:, 1:], hu[:, 1:])
