"""Segmentations hold the regions of the result, voxel for voxel and in their place, for every reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk

from klip_engine.detection import NOTICE
from klip_engine.io.dicom_results import DicomObject

from .cases import Case, read
from .readers import dcmqi, volume_at, voxels_at


@pytest.mark.parametrize("kind", [DicomObject.SEG, DicomObject.LABELMAP])
def test_dcmqi_reads_the_regions_where_they_are(case: Case, tmp_path: Path, kind: DicomObject) -> None:
    files = case.write(tmp_path / "dicom", [kind])
    out = dcmqi("segimage2itkimage", files[kind], tmp_path / "dcmqi")
    geometry = case.loaded.volume.geometry
    found = np.zeros_like(case.regions)
    for path in out.glob("*.nrrd"):
        segment = voxels_at(sitk.ReadImage(str(path)), geometry)
        found = np.where(segment > 0, segment, found)
    np.testing.assert_array_equal(found, case.regions)


@pytest.mark.parametrize("kind", [DicomObject.SEG, DicomObject.LABELMAP])
def test_highdicom_reads_the_regions_where_they_are(case: Case, tmp_path: Path, kind: DicomObject) -> None:
    path = case.write(tmp_path, [kind])[kind]
    volume = hd.seg.segread(path).get_volume(combine_segments=True)
    found = volume_at(np.asarray(volume.array), volume.affine, case.loaded.volume.geometry)
    np.testing.assert_array_equal(found, case.regions)


def test_matches_the_series_as_highdicom_reads_it(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    case = case_with(descending=True)
    files = case.write(tmp_path / "dicom", [DicomObject.SEG])
    series = hd.get_volume_from_series([read(path) for path in sorted(case.folder.iterdir())])
    segments = hd.seg.segread(files["seg"]).get_volume(combine_segments=True).match_geometry(series)
    found = volume_at(np.asarray(segments.array), series.affine, case.loaded.volume.geometry)
    np.testing.assert_array_equal(found, case.regions)


def test_simpleitk_reads_one_frame_per_slice_of_a_finding(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    case = case_with(findings=2)  # on slices of their own: GDCM refuses two frames at one place
    image = sitk.ReadImage(str(case.write(tmp_path, [DicomObject.SEG])["seg"]))
    expected = [case.regions[k] == f.label for f in case.findings for k in range(6) if f.slice_range[0] == k]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image) > 0, expected)


def test_frames_refer_to_the_source_slice_at_their_place(case: Case, tmp_path: Path) -> None:
    dataset = read(case.write(tmp_path, [DicomObject.SEG])["seg"])
    source = {one.SOPInstanceUID: one for one in map(read, case.folder.iterdir())}
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
        original = source[reference.ReferencedSOPInstanceUID]
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        assert place == pytest.approx(original.ImagePositionPatient, abs=1e-4)
        assert reference.SpatialLocationsPreserved == "YES"
        assert reference.ReferencedSOPClassUID == original.SOPClassUID
    (series,) = dataset.ReferencedSeriesSequence
    assert {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence} == set(source)
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.PixelSpacing == pytest.approx(next(iter(source.values())).PixelSpacing)


def test_segments_are_named_tracked_and_say_what_made_them(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    dataset = read(case_with().write(tmp_path, [DicomObject.SEG])["seg"])
    first, second = dataset.SegmentSequence
    assert (first.SegmentNumber, second.SegmentNumber) == (1, 2)
    assert first.SegmentLabel == "Finding 1 (score 9, p 0.01)"
    assert NOTICE in first.SegmentDescription
    assert first.TrackingID == "KLIP finding 1"
    assert first.TrackingUID != second.TrackingUID
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "KLIP"
    for fact in ('"steps":20', '"false_alarms":0.2', "sha256:ab12", '"threshold":1.5'):
        assert fact in algorithm.AlgorithmParameters
    assert "research use only" in dataset.SeriesDescription
    assert NOTICE in dataset.ImageComments


def test_the_strongest_finding_is_the_brightest(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    dataset = read(case_with(findings=5).write(tmp_path, [DicomObject.SEG])["seg"])
    lightness = [segment.RecommendedDisplayCIELabValue[0] for segment in dataset.SegmentSequence]
    assert lightness == sorted(lightness, reverse=True)
    assert len(set(lightness)) == 5


@pytest.mark.parametrize("rgb", [(255, 255, 255), (0, 0, 0), (255, 0, 0), (12, 200, 90), (252, 172, 17)])
def test_colours_come_back_from_cielab(rgb: tuple[int, int, int]) -> None:
    from klip_engine.io.dicom_results.colours import cielab

    colour = hd.color.CIELabColor.from_dicom_value(cielab(rgb))
    assert colour.to_rgb() == pytest.approx(rgb, abs=1)


def test_three_hundred_findings(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    case = case_with(shape=(12, 64, 64), findings=300)
    files = case.write(tmp_path, [DicomObject.SEG, DicomObject.LABELMAP, DicomObject.SR])
    for kind in ("seg", "labelmap"):
        volume = hd.seg.segread(files[kind]).get_volume(combine_segments=True)
        found = volume_at(np.asarray(volume.array), volume.affine, case.loaded.volume.geometry)
        np.testing.assert_array_equal(found, case.regions)
    assert len(hd.sr.srread(files["sr"]).content.get_volumetric_roi_measurement_groups()) == 300


def test_a_finding_between_the_slices_has_no_segment_and_the_others_keep_theirs(
    tmp_path: Path, case_with: Callable[..., Case]
) -> None:
    case = case_with(findings=3)
    regions = np.where(case.regions == 2, 0, case.regions).astype(np.uint16)
    sitk.WriteImage(case.loaded.volume.geometry.image(regions), str(case.results / "regions.nrrd"))
    files = case.write(tmp_path / "dicom")
    dataset = read(files["seg"])
    assert [one.SegmentNumber for one in dataset.SegmentSequence] == [1, 2]
    assert [one.TrackingID for one in dataset.SegmentSequence] == ["KLIP finding 1", "KLIP finding 3"]
    report = hd.sr.srread(files["sr"]).content
    segments = {
        group.tracking_identifier: item.ReferencedSOPSequence[0].ReferencedSegmentNumber
        for group in report.get_volumetric_roi_measurement_groups()
        for item in group[0].ContentSequence
        if item.ValueType == "IMAGE"
    }
    assert segments == {"KLIP finding 1": 1, "KLIP finding 3": 2}
    assert len(report.get_image_measurement_groups()) == 3


def test_without_findings_there_is_no_segmentation(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    marked, empty = case_with("marked"), case_with("empty", findings=0)
    out = tmp_path / "dicom"
    marked.write(out)
    assert set(empty.write(out, list(DicomObject))) == {"sr", "pm", "sc"}
    assert sorted(path.name for path in out.iterdir()) == ["pm.dcm", "sc.dcm", "sr.dcm"]
