"""Findings as a Comprehensive 3D SR that follows TID 1500, Measurement Report (PS3.3 A.35.13, PS3.16 Annex A)."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from klip_engine.detection import NOTICE, Finding
from klip_engine.io.dicom_results import codes
from klip_engine.io.dicom_results.composite import (
    ALGORITHM,
    MANUFACTURER,
    Context,
    instance_reference,
    new_object,
    referenced_series,
    settings_text,
)
from klip_engine.io.dicom_results.extra import structured_reporting
from klip_engine.io.dicom_results.objects import DicomObject
from klip_engine.io.dicom_results.segmentation import segment_numbers, tracking


def structured_report(context: Context) -> Dataset:
    """One measurement group per finding (TID 1411: segment, score, p-value, volume), one for its centre (TID 1501).

    Both carry the same tracking UID; centres are LPS mm in the source's frame of reference. Without findings one
    group says that no region scores above the threshold, which is no statement about the patient's health.
    """
    dataset = new_object(context, DicomObject.SR, Comprehensive3DSRStorage, "SR", "KLIP findings")
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    dataset.CurrentRequestedProcedureEvidenceSequence = [_evidence(context)]
    for element in _report(context):
        dataset.add(element)
    return dataset


def _report(context: Context) -> Dataset:
    """The root container of TID 1500 with a comment on the use of the result."""
    sr = structured_reporting()
    segments = segment_numbers(context)
    groups = []
    for finding in context.results.findings:
        if finding.label in segments:
            groups.append(_region(sr, context, finding, segments[finding.label]))
        groups.append(_centre(sr, context, finding, is_alone=finding.label not in segments))
    root: Dataset = sr.MeasurementReport(
        observation_context=_observer(sr, context),
        procedure_reported=_coded(sr, codes.CT_PROCEDURE),
        imaging_measurements=groups or [_nothing(sr, context)],
    )[0]
    root.ContentSequence.append(sr.TextContentItem(_coded(sr, codes.COMMENT), NOTICE, "CONTAINS"))
    return root


def _observer(sr: Any, context: Context) -> Any:
    """The program as observer (TID 1004)."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=context.uids.uid("observer"),
        name="klip-engine",
        manufacturer_name=MANUFACTURER,
        model_name="klip-engine",
        serial_number=context.algorithm_version,
    )
    kind = sr.CodedConcept("121007", "DCM", "Device")
    return sr.ObservationContext(observer_device_context=sr.ObserverContext(kind, device))


def _region(sr: Any, context: Context, finding: Finding, segment: int) -> Any:
    """The finding as a region: its segment, and what was measured in it (TID 1411)."""
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        **_identity(sr, context, finding),
        referenced_segment=sr.ReferencedSegment(
            SegmentationStorage,
            context.instance_uid(DicomObject.SEG),
            segment,
            source_series=sr.SourceSeriesForSegmentation(context.source.series_uid),
        ),
        measurements=[_score(sr, finding), *_further(sr, finding)],
    )


def _centre(sr: Any, context: Context, finding: Finding, *, is_alone: bool) -> Any:
    """The finding as a point, its score-weighted centre (TID 1501); alone where no voxel of the input shows it."""
    point = sr.CoordinatesForMeasurement3D(
        graphic_type="POINT",
        graphic_data=np.array([finding.centroid_lps_mm]),
        frame_of_reference_uid=context.frame_of_reference,
        purpose=_coded(sr, codes.CENTRE),
    )
    return sr.MeasurementsAndQualitativeEvaluations(
        **_identity(sr, context, finding),
        measurements=[_score(sr, finding, [point]), *(_further(sr, finding) if is_alone else [])],
    )


def _nothing(sr: Any, context: Context) -> Any:
    """The group of a report without findings (TID 1501)."""
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(context.uids.uid("no finding"), f"{ALGORITHM} search"),
        algorithm_id=_algorithm(sr, context),
        qualitative_evaluations=[
            sr.QualitativeEvaluation(_coded(sr, codes.RESULT), _coded(sr, codes.NOTHING_MARKED))
        ],
    )


def _identity(sr: Any, context: Context, finding: Finding) -> dict[str, Any]:
    """What both groups of a finding share."""
    identifier, uid = tracking(context, finding)
    return {
        "tracking_identifier": sr.TrackingIdentifier(uid, identifier),
        "finding_type": _coded(sr, codes.SUSPICIOUS_REGION),
        "algorithm_id": _algorithm(sr, context),
    }


def _algorithm(sr: Any, context: Context) -> Any:
    """Name, version and all settings as one parameter: readers such as dcmqi keep only the first (TID 4019)."""
    return sr.AlgorithmIdentification(ALGORITHM, context.algorithm_version, [settings_text(context)])


def _score(sr: Any, finding: Finding, points: list[Any] | None = None) -> Any:
    return sr.Measurement(
        _coded(sr, codes.SCORE),
        _number(finding.score),
        _coded(sr, codes.NO_UNITS),
        derivation=_coded(sr, codes.MAXIMUM),
        referenced_coordinates=points,
    )


def _further(sr: Any, finding: Finding) -> list[Any]:
    """Volume in ml, and the p-value where one is known."""
    volume = sr.Measurement(_coded(sr, codes.VOLUME), _number(finding.volume_ml), _coded(sr, codes.MILLILITRE))
    if finding.p_value is None:
        return [volume]
    p_value = sr.Measurement(_coded(sr, codes.P_VALUE), _number(finding.p_value), _coded(sr, codes.NO_UNITS))
    return [p_value, volume]


def _number(value: float) -> float:
    """A number whose shortest decimal form fits the 16 characters of a decimal string (PS3.5 6.2)."""
    return float(f"{value:.9g}")


def _coded(sr: Any, code: codes.Code) -> Any:
    return sr.CodedConcept(*code)


def _evidence(context: Context) -> Dataset:
    """The source images and the segmentation the report refers to, of one study (PS3.3 C.17.2.3)."""
    source = referenced_series(context)
    source.ReferencedSOPSequence = source.ReferencedInstanceSequence
    del source.ReferencedInstanceSequence
    series = [source]
    if context.results.marked:
        segmentation = Dataset()
        segmentation.SeriesInstanceUID = context.uids.uid(DicomObject.SEG, "series")
        reference = instance_reference(SegmentationStorage, context.instance_uid(DicomObject.SEG))
        segmentation.ReferencedSOPSequence = [reference]
        series.append(segmentation)
    study = Dataset()
    study.StudyInstanceUID = context.source.study_uid
    study.ReferencedSeriesSequence = series
    return study
