"""Enhanced multi-frame CT: stacks, temporal positions, concatenations, and what a frame must say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from klip_engine.io import read_ct

from .dicom_files import AXIAL, CORONAL, add_pixels, ct_values, straight_positions, write_enhanced
from .test_bad_input import refusal

HU = ct_values()
POSITIONS = straight_positions(len(HU), 2.0, AXIAL)
ORDER = [4, 0, 5, 2, 1, 3]


def enhanced(path: Path, edit: Callable[[Dataset], None] | None = None) -> Path:
    write_enhanced(path, HU, POSITIONS, ORDER)
    dataset = pydicom.dcmread(path)
    if edit is not None:
        edit(dataset)
    dataset.save_as(path)
    return path


def frame_content(frame: Dataset, **values: object) -> None:
    content = Dataset()
    for keyword, value in values.items():
        setattr(content, keyword, value)
    frame.FrameContentSequence = Sequence([content])


def test_the_writer_of_results_is_told_file_and_frame_of_every_slice(tmp_path: Path) -> None:
    loaded = read_ct(enhanced(tmp_path / "scan.dcm"))
    assert np.array_equal(loaded.volume.hu, HU)
    assert loaded.dicom_files == (tmp_path / "scan.dcm",) * 6
    assert loaded.dicom_frames is not None
    frames = pydicom.dcmread(tmp_path / "scan.dcm").PerFrameFunctionalGroupsSequence
    places = [frames[k].PlanePositionSequence[0].ImagePositionPatient[2] for k in loaded.dicom_frames]
    assert places == pytest.approx(POSITIONS[:, 2])


def test_a_frames_own_groups_win_over_the_shared_ones(tmp_path: Path) -> None:
    def shared_too(dataset: Dataset) -> None:
        wrong = Dataset()
        wrong.RescaleSlope, wrong.RescaleIntercept, wrong.RescaleType = 3, 0, "HU"
        dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = Sequence([wrong])

    assert np.array_equal(read_ct(enhanced(tmp_path / "scan.dcm", shared_too)).volume.hu, HU)


def test_tilt_and_kernel_of_the_functional_groups(tmp_path: Path) -> None:
    def tilted(dataset: Dataset) -> None:
        details = Dataset()
        details.GantryDetectorTilt = 12.0
        dataset.SharedFunctionalGroupsSequence[0].CTAcquisitionDetailsSequence = Sequence([details])

    assert "declares a gantry tilt of 12.0 degrees" in refusal(enhanced(tmp_path / "scan.dcm", tilted))


def test_several_temporal_positions(tmp_path: Path) -> None:
    def twice(dataset: Dataset) -> None:
        frames = dataset.PerFrameFunctionalGroupsSequence
        for number, frame in enumerate(frames):
            place = POSITIONS[number // 2]
            frame.PlanePositionSequence[0].ImagePositionPatient = list(place)
            frame_content(frame, TemporalPositionIndex=1 + number % 2)

    sentence = refusal(enhanced(tmp_path / "scan.dcm", twice))
    assert "holds 2 temporal positions or cardiac phases of the same slices" in sentence


def test_one_volume_in_several_stacks_is_one_volume(tmp_path: Path) -> None:
    def halves(dataset: Dataset) -> None:
        for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            frame_content(frame, StackID=str(1 + number % 2), TemporalPositionIndex=number + 1)

    loaded = read_ct(enhanced(tmp_path / "scan.dcm", halves))
    assert np.array_equal(loaded.volume.hu, HU)
    assert loaded.notices == ()


def test_of_stacks_that_lie_differently_the_largest_is_read(tmp_path: Path) -> None:
    def two_planes(dataset: Dataset) -> None:
        other = Dataset()
        other.ImageOrientationPatient = list(CORONAL)
        for k, frame in zip(ORDER, dataset.PerFrameFunctionalGroupsSequence, strict=True):
            frame_content(frame, StackID="axial" if k < 4 else "coronal")
            if k >= 4:
                frame.PlaneOrientationSequence = Sequence([other])

    loaded = read_ct(enhanced(tmp_path / "scan.dcm", two_planes))
    assert np.array_equal(loaded.volume.hu, HU[:4])
    assert loaded.notices == ("The frames form 2 stacks; the largest was read, 2 other frames left out.",)


def parts(folder: Path) -> list[Path]:
    """The image as a concatenation of three files of two frames (PS3.3 C.7.6.16.2.2.4)."""
    paths = []
    for part in range(3):

        def cut(dataset: Dataset, part: int = part) -> None:
            own = slice(2 * part, 2 * part + 2)
            frames = dataset.PerFrameFunctionalGroupsSequence[own]
            stored = dataset.pixel_array[own]
            dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
            add_pixels(dataset, stored)
            dataset.NumberOfFrames, dataset.SeriesInstanceUID = 2, "1.2.3"
            dataset.ConcatenationUID, dataset.InConcatenationNumber = "1.2.3.4", part + 1
            dataset.InConcatenationTotalNumber = 3

        paths.append(enhanced(folder / f"{part}.dcm", cut))
    return paths


def test_a_concatenation_is_joined(tmp_path: Path) -> None:
    paths = parts(tmp_path)
    loaded = read_ct(tmp_path)
    assert np.array_equal(loaded.volume.hu, HU)
    assert loaded.dicom_files == tuple(paths[ORDER.index(k) // 2] for k in range(6))


def test_a_concatenation_without_one_of_its_parts(tmp_path: Path) -> None:
    parts(tmp_path)[1].unlink()
    assert "in 3 files of which number 2 is missing" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("PlanePositionSequence", "frame 1 of {} has no usable ImagePositionPatient"),
        ("PixelValueTransformationSequence", "frame 1 of {} has no RescaleIntercept"),
    ],
)
def test_frames_that_do_not_say_what_they_must(tmp_path: Path, group: str, words: str) -> None:
    def without(dataset: Dataset) -> None:
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            delattr(frame, group)

    path = enhanced(tmp_path / "scan.dcm", without)
    assert words.format(path) in refusal(path)


def test_more_frames_than_places(tmp_path: Path) -> None:
    def claim(dataset: Dataset) -> None:
        dataset.NumberOfFrames = 2**31 - 1

    assert "announces 2147483647 frames but places 6" in refusal(enhanced(tmp_path / "scan.dcm", claim))


def test_far_more_pixels_than_the_file_can_hold(tmp_path: Path) -> None:
    def claim(dataset: Dataset) -> None:
        dataset.Rows = dataset.Columns = 4000

    assert "announces 96 million pixels" in refusal(enhanced(tmp_path / "scan.dcm", claim))
