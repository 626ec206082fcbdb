"""Objects belong to the patient, study and series they were made from, whatever these look like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from klip_engine.errors import InputError, UsageError
from klip_engine.io import read_ct
from klip_engine.io.dicom_results import ALL, DicomObject, read_written, write_dicom_results
from klip_engine.io.dicom_results.source import read_source

from ..dicom_files import AXIAL, ct_values, straight_positions, write_enhanced, write_series
from .cases import SERIES, SPACE, STUDY, Case, add_result, complete_header, read
from .readers import volume_at

COPIED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription"),
    *("AccessionNumber", "ReferringPhysicianName"),
)
OFTEN_MISSING = (
    *("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
    *("SeriesDate", "ContentDate", "ContentTime", "ReferringPhysicianName", "FrameOfReferenceUID"),
    *("SeriesNumber", "BodyPartExamined"),
)


def test_patient_and_study_are_those_of_the_source(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    case = case_with()
    source = read(next(case.folder.iterdir()))
    for path in case.write(tmp_path / "dicom", list(DicomObject)).values():
        dataset = read(path)
        for keyword in COPIED:
            assert dataset[keyword].value == source[keyword].value
        assert dataset.SeriesInstanceUID != SERIES
        if "FrameOfReferenceUID" in dataset:
            assert dataset.FrameOfReferenceUID == SPACE
        assert dataset.Manufacturer == "KLIP for 3D Slicer"


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "Παπαδόπουλος^Γιώργος"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
    ],
)
def test_names_in_any_script_come_through(
    tmp_path: Path, case_with: Callable[..., Case], charset: str | list[str], name: str
) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.SpecificCharacterSet = charset
        dataset.PatientName = name
        dataset.StudyDescription = name.split("=", maxsplit=1)[0] if charset != "GB18030" else name.split("=")[1]

    case = case_with(edit=edit)
    original = read(next(case.folder.iterdir()))
    for path in case.write(tmp_path / "dicom", list(DicomObject)).values():
        dataset = read(path)
        assert dataset.SpecificCharacterSet == original.SpecificCharacterSet
        assert str(dataset.PatientName) == str(original.PatientName) == name
        assert dataset.StudyDescription == original.StudyDescription


def test_undeclared_bytes_stay_what_they_are(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    raw = "Müller^Jörg".encode("latin-1")

    def edit(dataset: Dataset, k: int) -> None:
        dataset["PatientName"] = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag("PatientName"), "PN", len(raw), raw, 0, False, True
        )

    for path in case_with(edit=edit).write(tmp_path / "dicom").values():
        assert raw in path.read_bytes()


def test_a_sloppy_source_is_no_obstacle(tmp_path: Path, case_with: Callable[..., Case]) -> None:

    def edit(dataset: Dataset, k: int) -> None:
        for keyword in OFTEN_MISSING:
            del dataset[keyword]
        weight = b"72kg"
        dataset["PatientWeight"] = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag("PatientWeight"), "DS", len(weight), weight, 0, False, True
        )

    case = case_with(edit=edit)
    files = case.write(tmp_path / "dicom", list(DicomObject))
    for path in files.values():
        dataset = read(path)
        assert dataset.PatientID == "SECRET-ID-42"
        assert dataset.StudyDate == ""
        assert b"72kg" in path.read_bytes()
    places = {read(files[kind]).FrameOfReferenceUID for kind in ("seg", "pm", "labelmap")}
    assert len(places) == 1
    assert read(files["pm"]).BodyPartExamined == "WHOLEBODY"


def test_enhanced_multi_frame_is_referred_to_frame_by_frame(tmp_path: Path) -> None:
    values = ct_values((5, 36, 40)).clip(-1000, 400)
    positions = straight_positions(5, 2.0, AXIAL)
    order = [3, 0, 4, 1, 2]
    path = tmp_path / "enhanced.dcm"
    write_enhanced(path, values, positions, order)
    dataset = read(path)
    dataset.FrameOfReferenceUID = SPACE
    dataset.StudyDate = "20260102"
    dataset.save_as(path)
    case = add_result(tmp_path / "case", read_ct(path), findings=2)
    files = case.write(tmp_path / "dicom")
    for kind in ("seg", "pm"):
        result = read(files[kind])
        (series,) = result.ReferencedSeriesSequence
        (instance,) = series.ReferencedInstanceSequence
        assert instance.ReferencedSOPInstanceUID == dataset.SOPInstanceUID
        for frame in result.PerFrameFunctionalGroupsSequence:
            reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
            place = frame.PlanePositionSequence[0].ImagePositionPatient
            original = order[reference.ReferencedFrameNumber - 1]
            assert place == pytest.approx(positions[original], abs=1e-4)
            assert reference.SpatialLocationsPreserved == "YES"
    volume = hd.seg.segread(files["seg"]).get_volume(combine_segments=True)
    found = volume_at(np.asarray(volume.array), volume.affine, case.loaded.volume.geometry)
    np.testing.assert_array_equal(found, case.regions)


def test_a_tilted_series_is_referred_to_but_not_as_the_same_place(tmp_path: Path) -> None:
    tilt = np.radians(12)
    orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(tilt)), float(-np.sin(tilt)))
    positions = np.array([[-100.0, -80.0, 20.0 + 4.0 * k] for k in range(6)])

    def edit(dataset: Dataset, k: int) -> None:
        complete_header(dataset, k)
        dataset.GantryDetectorTilt = 12.0

    values = ct_values((6, 40, 48)).clip(-1000, 400)
    write_series(tmp_path / "series", values, positions, orientation=orientation, series=SERIES, edit=edit)
    case = add_result(tmp_path / "case", read_ct(tmp_path / "series"), findings=2)
    files = case.write(tmp_path / "dicom")
    references = [
        frame.DerivationImageSequence[0].SourceImageSequence[0]
        for frame in read(files["pm"]).PerFrameFunctionalGroupsSequence
    ]
    assert "NO" in {one.SpatialLocationsPreserved for one in references}
    assert len({one.ReferencedSOPInstanceUID for one in references}) == 6
    volume = hd.imread(files["pm"]).get_volume()
    found = volume_at(np.asarray(volume.array), volume.affine, case.loaded.volume.geometry)
    np.testing.assert_array_equal(found.astype(np.float32), case.score)


def test_lossy_compression_of_the_source_is_said(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.LossyImageCompression, dataset.LossyImageCompressionRatio = "01", 8.5
        dataset.LossyImageCompressionMethod = "ISO_10918_1"

    files = case_with(edit=edit).write(tmp_path / "dicom")
    for kind in ("seg", "pm", "sc"):
        assert read(files[kind]).LossyImageCompression == "01"
        assert float(read(files[kind]).LossyImageCompressionRatio) == 8.5


def test_another_series_is_refused(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    case = case_with()

    def edit(dataset: Dataset, k: int) -> None:
        dataset.StudyInstanceUID = STUDY

    values, positions = ct_values((6, 40, 48)).clip(-1000, 400), straight_positions(6, 3.0, AXIAL)
    write_series(tmp_path / "other", values, positions, series=generate_uid(), edit=edit)
    with pytest.raises(InputError, match="made from another series"):
        write_dicom_results(case.results, read_ct(tmp_path / "other"), tmp_path / "dicom", ALL)
    assert not (tmp_path / "dicom").exists()


def test_a_series_with_a_slice_less_is_refused(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    case = case_with()
    sorted(case.folder.iterdir())[-1].unlink()
    with pytest.raises(InputError, match="other slices or another place"):
        write_dicom_results(case.results, read_ct(case.folder), tmp_path / "dicom", ALL)


def test_a_volume_file_is_refused(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    path = tmp_path / "ct.nrrd"
    volume = case_with().loaded.volume
    sitk.WriteImage(volume.geometry.image(volume.hu), str(path))
    with pytest.raises(UsageError, match="this input is not DICOM"):
        read_source(read_ct(path))


def test_a_file_that_went_away_is_named(case_with: Callable[..., Case]) -> None:
    case = case_with()
    gone = sorted(case.folder.iterdir())[2]
    gone.unlink()
    with pytest.raises(InputError, match=rf"{gone.name} is no longer there"):
        read_source(case.loaded)


def test_a_source_without_study_is_named(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        del dataset.StudyInstanceUID

    with pytest.raises(InputError, match="has no StudyInstanceUID"):
        case_with(edit=edit).write(tmp_path / "dicom")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("findings.json", None, "there is no findings.json"),
        ("findings.json", "{", "cannot be read"),
        ("findings.json", '{"schema": "klip-findings/9"}', "not of the schema"),
        ("findings.json", '{"schema": "klip-findings/1"}', "is damaged"),
        ("klip.nrrd", "x", "klip.nrrd is missing or damaged"),
        ("regions.nrrd", None, "a photograph or not complete"),
    ],
)
def test_damaged_results_are_refused(
    case_with: Callable[..., Case], file: str, content: str | None, message: str
) -> None:
    case = case_with()
    (case.results / file).unlink()
    if content is not None:
        (case.results / file).write_text(content)
    with pytest.raises(InputError, match=message):
        read_written(case.results)
