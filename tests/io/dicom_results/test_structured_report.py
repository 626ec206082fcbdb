"""The report holds every finding's figures, and points to its segment and its centre."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from klip_engine.detection import NOTICE

from .cases import SERIES, SPACE, Case, read
from .readers import dcmqi_report


def test_highdicom_reads_the_findings(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    case = case_with(findings=3)
    files = case.write(tmp_path)
    segmentation = read(files["seg"])
    content = hd.sr.srread(files["sr"]).content
    groups = content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 3
    for finding, group, segment in zip(case.findings, groups, segmentation.SegmentSequence, strict=True):
        assert group.tracking_uid == segment.TrackingUID
        figures = {one.name.meaning: one.value for one in group.get_measurements()}
        assert figures == pytest.approx(
            {"KLIP score": finding.score, "P-value": finding.p_value, "Volume": finding.volume_ml}
        )
        assert [one.unit.value for one in group.get_measurements(name=codes.SCT.Volume)] == ["mL"]
        reference = _of_kind(group[0], "IMAGE")[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        assert reference.ReferencedSegmentNumber == segment.SegmentNumber


def test_centres_are_points_of_the_same_finding(case: Case, tmp_path: Path) -> None:
    content = hd.sr.srread(case.write(tmp_path)["sr"]).content
    regions = {group.tracking_uid for group in content.get_volumetric_roi_measurement_groups()}
    centres = content.get_image_measurement_groups()
    assert {group.tracking_uid for group in centres} == regions
    for finding, group in zip(case.findings, centres, strict=True):
        point = _of_kind(_of_kind(group[0], "NUM")[0], "SCOORD3D")[0]
        assert point.GraphicType == "POINT"
        assert list(point.GraphicData) == pytest.approx(finding.centroid_lps_mm, abs=1e-3)
        assert point.ReferencedFrameOfReferenceUID == SPACE


def test_dcmqi_reads_the_findings_and_all_settings(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    case = case_with()
    files = case.write(tmp_path / "dicom")
    groups = dcmqi_report(files["sr"], tmp_path / "report.json")["Measurements"]
    regions = [group for group in groups if "ReferencedSegment" in group]
    assert [group["ReferencedSegment"] for group in regions] == [1, 2]
    for group, finding in zip(regions, case.findings, strict=True):
        assert group["segmentationSOPInstanceUID"] == read(files["seg"]).SOPInstanceUID
        assert group["SourceSeriesForImageSegmentation"] == SERIES
        values = {one["quantity"]["CodeMeaning"]: float(one["value"]) for one in group["measurementItems"]}
        assert values == pytest.approx(
            {"KLIP score": finding.score, "P-value": finding.p_value, "Volume": finding.volume_ml}
        )
        (settings,) = group["measurementAlgorithmIdentification"]["AlgorithmParameters"]
        for fact in ('"steps":20', '"false_alarms":0.2', "sha256:ab12"):
            assert fact in settings


def test_an_unknown_p_value_is_left_out(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    content = hd.sr.srread(case_with(p_value=None).write(tmp_path)["sr"]).content
    for group in content.get_volumetric_roi_measurement_groups():
        assert [one.name.meaning for one in group.get_measurements()] == ["KLIP score", "Volume"]


def test_without_findings_it_says_so(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    report = hd.sr.srread(case_with(findings=0).write(tmp_path)["sr"])
    (group,) = report.content.get_image_measurement_groups()
    (evaluation,) = group.get_qualitative_evaluations()
    assert evaluation.value.meaning == "No region scores above the threshold"
    assert not report.content.get_volumetric_roi_measurement_groups()
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert [series.SeriesInstanceUID for series in study.ReferencedSeriesSequence] == [SERIES]


def test_it_is_unverified_preliminary_and_for_research(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    report = read(case_with().write(tmp_path)["sr"])
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    comments = [item.TextValue for item in _of_kind(report, "TEXT") if _name(item) == "Comment"]
    assert comments == [NOTICE]
    assert "research use only" in report.SeriesDescription


def _of_kind(item: Dataset, kind: str) -> list[Dataset]:
    return [one for one in item.ContentSequence if one.ValueType == kind]


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)
