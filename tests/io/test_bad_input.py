"""Every bad input is refused with one sentence that names it and the cure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import (
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from klip_engine.errors import InputError, UsageError
from klip_engine.io import read_ct
from klip_engine.io.hounsfield import check_geometry
from klip_engine.volume import Geometry

from .dicom_files import (
    AXIAL,
    CORONAL,
    add_pixels,
    blank,
    ct_values,
    straight_positions,
    write_directory_index,
    write_dose_report,
    write_series,
)


def refusal(path: Path) -> str:
    """The sentence a path is refused with; it is one line, names the path and holds no patient data."""
    with pytest.raises(InputError) as caught:
        read_ct(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert path.name in sentence
    assert "secret" not in sentence.lower()
    assert len(sentence) < 400
    return sentence


def write_volume(path: Path, array: np.ndarray) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.8, 0.8, 2.5)[: image.GetDimension()])
    sitk.WriteImage(image, str(path))
    return path


# --- no image at all


def test_no_such_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.nrrd")


def test_empty_folder(tmp_path: Path) -> None:
    assert "is empty" in refusal(tmp_path)


def test_folder_without_dicom(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "no DICOM files" in refusal(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "scan.nrrd").touch()
    assert "empty (0 bytes)" in refusal(tmp_path / "scan.nrrd")


@pytest.mark.parametrize("name", ["notes.md", "scan.nrrd", "scan.nii", "scan"])
def test_not_an_image(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("this is not an image\n" * 50)
    assert "neither an image nor" in refusal(tmp_path / name)


def test_truncated_volume_file(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "scan.nrrd", ct_values())
    path.write_bytes(path.read_bytes()[:-5000])
    assert "damaged" in refusal(path)


def test_header_without_its_data_file(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "scan.mhd", ct_values())
    (tmp_path / "scan.raw").unlink()
    assert "damaged, incomplete" in refusal(path)


# --- an image, but no CT volume


def test_colour_picture(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "photo.png")
    assert "3 values per voxel" in refusal(tmp_path / "photo.png")


def test_grey_picture(tmp_path: Path) -> None:
    Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)).save(tmp_path / "photo.png")
    assert "picture or a label map" in refusal(tmp_path / "photo.png")


def test_several_time_steps(tmp_path: Path) -> None:
    series = sitk.JoinSeries([sitk.GetImageFromArray(ct_values())] * 3)
    sitk.WriteImage(series, str(tmp_path / "perfusion.nrrd"))
    assert "3 volumes" in refusal(tmp_path / "perfusion.nrrd")


def test_raw_numbers_without_rescale(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "raw.nrrd", (ct_values().astype(np.int32) + 1024).astype(np.uint16))
    assert "subtract 1024" in refusal(path)


def test_raw_numbers_with_padding(tmp_path: Path) -> None:
    values = ct_values() + 1024
    values[:, :2] = -2000
    assert "subtract 1024" in refusal(write_volume(tmp_path / "raw.nrrd", values))


@pytest.mark.parametrize("scale", [(0.0, 1.0), (-1.0, 1.0)])
def test_normalised_values(tmp_path: Path, scale: tuple[float, float]) -> None:
    unit = (ct_values().astype(np.float32) + 1000) / 2200
    values = scale[0] + unit * (scale[1] - scale[0])
    assert "normalised" in refusal(write_volume(tmp_path / "unit.nrrd", values))


def test_values_beyond_sixteen_bits(tmp_path: Path) -> None:
    values = ct_values().astype(np.float32) * 100
    assert "cannot be Hounsfield units" in refusal(write_volume(tmp_path / "big.nrrd", values))


def test_constant_image(tmp_path: Path) -> None:
    assert "every voxel" in refusal(write_volume(tmp_path / "flat.nrrd", np.full((4, 40, 40), -1000.0)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_a_number(tmp_path: Path, value: float) -> None:
    values = ct_values().astype(np.float32)
    values[3, 5, 5] = value
    assert "first in slice 4 of 6" in refusal(write_volume(tmp_path / "nan.nrrd", values))


def test_fewer_pixels_than_a_patch(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "tiny.nrrd", ct_values((6, 20, 48)))
    assert "48 x 20 pixels" in refusal(path)


def test_zero_spacing(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "scan.mha", ct_values())
    content = path.read_bytes()
    start = content.index(b"ElementSpacing")
    end = content.index(b"\n", start)
    path.write_bytes(content[:start] + b"ElementSpacing = 0.8 0.8 0" + content[end:])
    assert "zero or negative voxel spacing" in refusal(path)


@pytest.mark.parametrize("spacing", [(0.8, 0.8, -2.5), (0.8, float("nan"), 2.5)])
def test_spacing_that_is_no_length(spacing: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="above zero"):
        check_geometry(Geometry((48, 40, 6), spacing), "scan")


def test_axes_that_are_not_perpendicular(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "sheared.nrrd", ct_values())
    content = path.read_bytes()
    start, end = content.index(b"space directions"), content.index(b"kinds")
    sheared = b"space directions: (0.8,0,0) (0,0.8,0) (0,0.9,2.5)\n"
    path.write_bytes(content[:start] + sheared + content[end:])
    assert "not perpendicular" in refusal(path)


# --- DICOM


def series(tmp_path: Path, edit: Callable[[Dataset, int], None] | None = None, count: int = 6) -> Path:
    folder = tmp_path / "series"
    write_series(folder, ct_values((count, 40, 48)), straight_positions(count, 2.0, AXIAL), edit=edit)
    return folder


def only(k: int, keyword: str, value: object) -> Callable[[Dataset, int], None]:
    """An edit of one slice."""

    def edit(dataset: Dataset, index: int) -> None:
        if index == k:
            setattr(dataset, keyword, value)

    return edit


def test_only_localizers(tmp_path: Path) -> None:
    def scout(dataset: Dataset, k: int) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    assert "only localizers" in refusal(series(tmp_path, scout))


def test_only_a_dose_report(tmp_path: Path) -> None:
    write_dose_report(tmp_path / "dose.dcm")
    assert "DICOM without images" in refusal(tmp_path / "dose.dcm")


def test_directory_index_instead_of_its_folder(tmp_path: Path) -> None:
    write_directory_index(tmp_path / "DICOMDIR")
    assert "give the folder it lies in" in refusal(tmp_path / "DICOMDIR")


@pytest.mark.parametrize(("sop_class", "modality"), [(MRImageStorage, "MR"), (SecondaryCaptureImageStorage, "CT")])
def test_other_modality(tmp_path: Path, sop_class: str, modality: str) -> None:
    dataset = blank(sop_class, modality=modality)
    add_pixels(dataset, np.zeros((40, 40), np.uint16))
    dataset.save_as(tmp_path / "image.dcm")
    assert f"no CT images (modality {modality})" in refusal(tmp_path / "image.dcm")


def test_duplicate_slices(tmp_path: Path) -> None:
    positions = straight_positions(6, 2.0, AXIAL)
    positions[3] = positions[2]
    write_series(tmp_path, ct_values(), positions)
    sentence = refusal(tmp_path)
    assert "1 duplicate slice position(s), the first at 316.40 mm" in sentence
    assert "0002.dcm and 0003.dcm" in sentence


def test_missing_slices(tmp_path: Path) -> None:
    folder = series(tmp_path, count=12)
    (folder / "0004.dcm").unlink()
    sentence = refusal(folder)
    assert "missing" in sentence
    assert "between slices 4 and 5 of 11 (318.40 and 322.40 mm): 4.00 mm apart, 2.00 mm elsewhere" in sentence


def test_mixed_orientation(tmp_path: Path) -> None:
    sentence = refusal(series(tmp_path, only(4, "ImageOrientationPatient", list(CORONAL))))
    assert "2 different orientations (5 and 1 slices; 0004.dcm" in sentence


def test_mixed_matrix(tmp_path: Path) -> None:
    def other_matrix(dataset: Dataset, k: int) -> None:
        if k == 1:
            add_pixels(dataset, np.full((64, 64), 1024, np.uint16))

    assert "2 different matrix sizes (5 and 1 slices; 0001.dcm" in refusal(series(tmp_path, other_matrix))


def test_mixed_pixel_spacing(tmp_path: Path) -> None:
    assert "2 different pixel spacings" in refusal(series(tmp_path, only(2, "PixelSpacing", [0.75, 0.8])))


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_slice_without_a_place(tmp_path: Path, keyword: str) -> None:
    sentence = refusal(series(tmp_path, lambda dataset, k: delattr(dataset, keyword)))
    assert f"no usable {keyword}" in sentence


@pytest.mark.parametrize("keyword", ["RescaleIntercept", "RescaleSlope"])
def test_no_rescale(tmp_path: Path, keyword: str) -> None:
    sentence = refusal(series(tmp_path, lambda dataset, k: delattr(dataset, keyword)))
    assert f"no {keyword}, so Hounsfield units cannot be computed" in sentence


def test_rescaled_to_something_else(tmp_path: Path) -> None:
    assert "'Z_EFF', not Hounsfield units" in refusal(series(tmp_path, only(0, "RescaleType", "Z_EFF")))


def test_zero_pixel_spacing(tmp_path: Path) -> None:
    assert "PixelSpacing of zero" in refusal(series(tmp_path, only(0, "PixelSpacing", [0, 0])))


def test_directions_that_are_no_directions(tmp_path: Path) -> None:
    skewed = only(0, "ImageOrientationPatient", [1, 0, 0, 0.5, 0.866, 0])
    assert "perpendicular unit vectors" in refusal(series(tmp_path, skewed))


def test_damaged_dicom(tmp_path: Path) -> None:
    folder = series(tmp_path)
    path = folder / "0002.dcm"
    path.write_bytes(path.read_bytes()[:-500])
    sentence = refusal(path)
    assert "damaged" in sentence
    path.write_bytes(path.read_bytes()[:140])
    assert "damaged" in refusal(path)


def test_transfer_syntax_nobody_decodes(tmp_path: Path) -> None:
    folder = series(tmp_path)
    path = folder / "0000.dcm"
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.7\0", 1))
    assert "transfer syntax '1.2.840.10008.1.2.7', which is not supported" in refusal(path)


def test_transfer_syntax_without_its_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = series(tmp_path, lambda dataset, k: dataset.compress(RLELossless))
    monkeypatch.setattr(Decoder, "is_available", property(lambda self: False))
    sentence = refusal(folder / "0000.dcm")
    assert "'RLE Lossless'" in sentence
    assert "extra 'compressed-dicom'" in sentence


def test_header_without_pixels(tmp_path: Path) -> None:
    assert "has no pixel data" in refusal(series(tmp_path, lambda dataset, k: delattr(dataset, "PixelData")))


def test_image_without_a_size(tmp_path: Path) -> None:
    assert "does not say how many pixels" in refusal(series(tmp_path, only(1, "Rows", None)))


@pytest.mark.parametrize("colour", ["RGB", "PALETTE COLOR", "YBR_FULL_422"])
def test_colours(tmp_path: Path, colour: str) -> None:
    assert f"a colour picture ({colour})" in refusal(series(tmp_path, only(1, "PhotometricInterpretation", colour)))


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("BitsAllocated", 12, "16 of 12 bits"),
        ("BitsStored", 17, "17 of 16 bits"),
        ("HighBit", 11, "16 of 16 bits up to bit 11"),
    ],
)
def test_bits_nobody_stores(tmp_path: Path, keyword: str, value: int, words: str) -> None:
    assert words in refusal(series(tmp_path, only(1, keyword, value)))


def test_matrix_no_scanner_has(tmp_path: Path) -> None:
    assert "claims 48 x 65535 pixels" in refusal(
        series(tmp_path, lambda dataset, k: setattr(dataset, "Rows", 65535))
    )


def test_frames_in_a_classic_image(tmp_path: Path) -> None:
    assert "classic CT image with 4 frames" in refusal(series(tmp_path, only(0, "NumberOfFrames", 4)))


def test_shear_steeper_than_any_gantry(tmp_path: Path) -> None:
    positions = straight_positions(6, 2.0, AXIAL)
    positions[:, 1] += 100 * np.arange(6)
    write_series(tmp_path, ct_values(), positions)
    assert "sheared by 89 degrees" in refusal(tmp_path)


def test_longer_than_any_patient(tmp_path: Path) -> None:
    write_series(tmp_path, ct_values(), straight_positions(6, 2000.0, AXIAL))
    assert "is 12.0 m long" in refusal(tmp_path)


def test_farther_away_than_any_scanner(tmp_path: Path) -> None:
    write_series(tmp_path, ct_values(), straight_positions(6, 2.0, AXIAL, (0, 0, 1e7)))
    assert "100 m away" in refusal(tmp_path)


def test_series_cannot_be_chosen_in_a_volume_file(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "scan.nrrd", ct_values())
    with pytest.raises(UsageError, match="no series to choose"):
        read_ct(path, series=generate_uid())
