"""DICOM series come back voxel for voxel and in place; SimpleITK's own GDCM reader is the reference."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RLELossless, generate_uid

from klip_engine.errors import UsageError
from klip_engine.io import LoadedCT, read_ct

from .dicom_files import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    add_pixels,
    ct_values,
    oblique,
    straight_positions,
    write_directory_index,
    write_dose_report,
    write_enhanced,
    write_series,
)


def gdcm_reference(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def assert_same_in_space(loaded: LoadedCT, reference: sitk.Image) -> None:
    """Every voxel of the reference is found at its physical place, with its value."""
    geometry = loaded.volume.geometry
    x, y, z = np.meshgrid(*(np.arange(n) for n in reference.GetSize()), indexing="ij")
    index = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    corners = index[[0, len(index) // 3, -1]]
    for i, j, k in corners.tolist():
        place = reference.TransformIndexToPhysicalPoint((i, j, k))
        assert geometry.to_index(place) == pytest.approx(np.rint(geometry.to_index(place)), abs=1e-3)
    matrix = np.array(reference.GetDirection()).reshape(3, 3) * np.array(reference.GetSpacing())
    found = np.rint(geometry.to_index(index @ matrix.T + reference.GetOrigin())).astype(int)
    values = sitk.GetArrayFromImage(reference)[index[:, 2], index[:, 1], index[:, 0]]
    ours = loaded.volume.hu[found[:, 2], found[:, 1], found[:, 0]]
    assert geometry.size == reference.GetSize()
    assert np.array_equal(ours, np.maximum(values, -1024))


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, CORONAL, oblique()])
@pytest.mark.parametrize("gap", [2.7, -2.7])
@pytest.mark.parametrize("shuffled", [False, True])
def test_series_comes_back_in_place(
    tmp_path: Path, orientation: tuple[float, ...], gap: float, shuffled: bool
) -> None:
    hu = ct_values()
    names = [f"{name}.dcm" for name in "dbfaec"] if shuffled else None
    positions = straight_positions(len(hu), gap, orientation)

    def scramble(dataset: Dataset, k: int) -> None:
        dataset.InstanceNumber = (3 * k) % 7

    write_series(
        tmp_path,
        hu,
        positions,
        orientation=orientation,
        pixel_mm=(0.7, 0.9),
        names=names,
        edit=scramble if shuffled else None,
    )
    loaded = read_ct(tmp_path)
    assert_same_in_space(loaded, gdcm_reference(tmp_path))
    lowest = 0 if gap > 0 else len(hu) - 1
    assert loaded.volume.geometry.origin == pytest.approx(positions[lowest], abs=1e-6)
    assert loaded.volume.geometry.spacing == pytest.approx((0.9, 0.7, 2.7), abs=1e-6)
    assert np.array_equal(loaded.volume.hu[lowest], hu[0])
    assert loaded.notices == ()


@pytest.mark.parametrize("name", ["acrin-flt-breast-013", "c4kc-kits-00072"])
def test_native_series_match_gdcm(shared_ct: Path, name: str) -> None:
    folder = shared_ct / "dicom" / name
    loaded = read_ct(folder)
    reference = gdcm_reference(folder)
    assert loaded.volume.geometry.size == reference.GetSize()
    assert loaded.volume.geometry.spacing == pytest.approx(reference.GetSpacing(), abs=1e-9)
    assert loaded.volume.geometry.origin == pytest.approx(reference.GetOrigin(), abs=1e-9)
    assert loaded.volume.geometry.direction == pytest.approx(reference.GetDirection(), abs=1e-9)
    assert np.array_equal(loaded.volume.hu, np.maximum(sitk.GetArrayFromImage(reference), -1024))


def test_folders_are_read_recursively_and_other_files_ignored(tmp_path: Path) -> None:
    hu = ct_values()
    positions = straight_positions(len(hu), 2.0, AXIAL)
    uid = generate_uid()
    write_series(tmp_path / "a", hu[:3], positions[:3], series=uid)
    write_series(tmp_path / "b" / "c", hu[3:], positions[3:], series=uid, names=["x", "y", "z"])
    (tmp_path / "readme.txt").write_text("not DICOM")
    write_directory_index(tmp_path / "DICOMDIR")
    (tmp_path / ".hidden.dcm").write_bytes(b"\0" * 128 + b"DICM")
    loaded = read_ct(tmp_path)
    assert np.array_equal(loaded.volume.hu, hu)
    assert loaded.notices == ()


def test_rescale_is_applied_slice_by_slice(tmp_path: Path) -> None:
    hu = ct_values()

    def per_slice(dataset: Dataset, k: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 * (k + 1), -1000 - k

    write_series(tmp_path, hu, straight_positions(len(hu), 2.0, AXIAL), edit=per_slice)
    slopes = 0.5 * np.arange(1, 7)[:, None, None]
    intercepts = (-1000 - np.arange(6))[:, None, None]
    assert read_ct(tmp_path).volume.hu == pytest.approx((hu + 1024) * slopes + intercepts, abs=1e-3)


@pytest.mark.parametrize(("as_written", "vr"), [(-2000, "SS"), (63536, "US")])
def test_padding_becomes_air_below_the_scale(tmp_path: Path, as_written: int, vr: str) -> None:
    hu = ct_values()
    hu[:, :3] = -2000

    def signed_with_padding(dataset: Dataset, k: int) -> None:
        add_pixels(dataset, hu[k])
        dataset.RescaleIntercept = 0
        dataset.add_new("PixelPaddingValue", vr, as_written)

    write_series(tmp_path, hu, straight_positions(len(hu), 2.0, AXIAL), edit=signed_with_padding)
    loaded = read_ct(tmp_path).volume.hu
    assert (loaded[:, :3] == -1024).all()
    assert np.array_equal(loaded[:, 3:], hu[:, 3:])


def test_padding_value_inside_the_scale_is_still_padding(tmp_path: Path) -> None:
    hu = ct_values()
    hu[:, :3] = 1500

    def padded(dataset: Dataset, k: int) -> None:
        dataset.PixelPaddingValue = 1500 + 1024 - 5
        dataset.PixelPaddingRangeLimit = 1500 + 1024 + 5

    write_series(tmp_path, hu, straight_positions(len(hu), 2.0, AXIAL), edit=padded)
    assert (read_ct(tmp_path).volume.hu[:, :3] == -1024).all()


def test_rle_compressed_and_implicit_files_are_read(tmp_path: Path) -> None:
    hu = ct_values()

    def encode(dataset: Dataset, k: int) -> None:
        if k % 2:
            dataset.compress(RLELossless)
        else:
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian

    write_series(tmp_path, hu, straight_positions(len(hu), 2.0, AXIAL), edit=encode)
    assert np.array_equal(read_ct(tmp_path).volume.hu, hu)


def test_file_without_preamble_is_read(tmp_path: Path) -> None:
    hu = ct_values((1, 40, 48))
    (path,) = write_series(tmp_path, hu, straight_positions(1, 2.0, AXIAL))
    content = path.read_bytes()
    path.write_bytes(content[content.index(b"\x08\x00\x08\x00CS") :])  # from ImageType on
    assert np.array_equal(read_ct(path).volume.hu, hu)


def test_one_file_is_one_slice_of_its_own_thickness(tmp_path: Path) -> None:
    hu = ct_values()
    paths = write_series(tmp_path, hu, straight_positions(len(hu), 2.0, AXIAL))
    loaded = read_ct(paths[2])
    assert np.array_equal(loaded.volume.hu, hu[2:3])
    assert loaded.volume.geometry.spacing == (0.75, 0.75, 2.5)
    assert "one slice" in " ".join(loaded.notices)


def test_localizers_and_dose_reports_are_left_out_with_a_notice(tmp_path: Path) -> None:
    hu = ct_values()
    uid = generate_uid()

    def scout(dataset: Dataset, k: int) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        del dataset.RescaleIntercept

    write_series(tmp_path / "ct", hu, straight_positions(len(hu), 2.0, AXIAL), series=uid)
    scout_place = straight_positions(1, 1.0, CORONAL)
    write_series(tmp_path / "scout", ct_values((1, 64, 64)), scout_place, series=uid, edit=scout)
    write_dose_report(tmp_path / "dose.dcm")
    loaded = read_ct(tmp_path)
    assert np.array_equal(loaded.volume.hu, hu)
    assert "1 localizer" in " ".join(loaded.notices)
    assert "1 DICOM object" in " ".join(loaded.notices)


def test_longest_of_several_series_is_read_unless_one_is_named(tmp_path: Path) -> None:
    long, short = ct_values(seed=1), ct_values((4, 40, 48), seed=2)
    uids = [generate_uid(), generate_uid()]

    def numbered(number: int):  # type: ignore[no-untyped-def]
        def edit(dataset: Dataset, k: int) -> None:
            dataset.SeriesNumber, dataset.StudyInstanceUID = number, "1.2.3"

        return edit

    write_series(tmp_path / "1", short, straight_positions(4, 2.0, AXIAL), series=uids[0], edit=numbered(7))
    write_series(tmp_path / "2", long, straight_positions(6, 2.0, AXIAL), series=uids[1], edit=numbered(8))
    loaded = read_ct(tmp_path)
    assert np.array_equal(loaded.volume.hu, long)
    assert loaded.notices == (
        "Of 2 CT series, number 8 was read (axial, 6 slices, 2.00 mm apart). Left out: number 7 (only 4 slices).",
    )
    for name in (uids[0], "7"):
        chosen = read_ct(tmp_path, series=name)
        assert np.array_equal(chosen.volume.hu, short)
        assert chosen.notices == ()
    with pytest.raises(UsageError, match=r"no CT series with.* 99;.*7, 8"):
        read_ct(tmp_path, series="99")


def test_enhanced_multi_frame_is_read_from_its_functional_groups(tmp_path: Path) -> None:
    hu = ct_values()
    path = tmp_path / "enhanced.dcm"
    positions = straight_positions(len(hu), 2.0, AXIAL)
    write_enhanced(path, hu, positions, order=[4, 0, 5, 2, 1, 3])
    for source in (path, tmp_path):
        loaded = read_ct(source)
        assert np.array_equal(loaded.volume.hu, hu)
        assert loaded.volume.geometry.origin == pytest.approx(positions[0])
        assert loaded.volume.geometry.spacing == pytest.approx((0.6, 0.8, 2.0))


def test_nothing_about_the_patient_comes_out(tmp_path: Path) -> None:
    hu = ct_values()
    uid = generate_uid()
    write_series(tmp_path, hu, straight_positions(len(hu), 2.0, AXIAL), series=uid)
    loaded = read_ct(tmp_path)
    told = repr(loaded.description) + repr(loaded.notices)
    assert not any(secret in told for secret in ("Secret", "SECRET", "1901", uid))
    assert loaded.description["format"] == "DICOM"
    assert loaded.description["files"] == loaded.description["slices"] == 6
    assert loaded.description["size"] == [48, 40, 6]


def test_memory_stays_near_the_size_of_the_volume(tmp_path: Path) -> None:
    hu = ct_values((40, 256, 256))
    write_series(tmp_path, hu, straight_positions(len(hu), 2.0, AXIAL))
    tracemalloc.start()
    loaded = read_ct(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.3 * loaded.volume.hu.nbytes
