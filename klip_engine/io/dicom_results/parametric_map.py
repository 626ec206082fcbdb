"""The KLIP score as a DICOM Parametric Map of 32-bit floats (PS3.3 A.75, C.8.32)."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ParametricMapStorage

from klip_engine.io.dicom_results.codes import KLIP_SCORING, NO_UNITS, QUANTITY, SCORE
from klip_engine.io.dicom_results.composite import (
    Context,
    add_image_facts,
    body_part,
    new_object,
    referenced_series,
)
from klip_engine.io.dicom_results.multiframe import (
    add_dimensions,
    add_space,
    decimals,
    frame_groups,
    shared_groups,
)
from klip_engine.io.dicom_results.objects import DicomObject

_FRAME_TYPE = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]


def parametric_map(context: Context) -> Dataset:
    """Parametric Map Storage of the score, one frame per slice, ascending along the slice normal.

    Frames carry a Frame Anatomy and ascend because readers (dcmqi 1.5.7) crash without the one and mirror the
    volume without the other.
    """
    results = context.results
    dataset = new_object(context, DicomObject.PM, ParametricMapStorage, "OT", "KLIP score")
    add_space(dataset, context)
    add_image_facts(dataset, context)
    dataset.BodyPartExamined, region = body_part(context)
    dataset.ImageType = _FRAME_TYPE
    dataset.BitsAllocated = 32
    dataset.ContentLabel = "KLIP_SCORE"
    dataset.ContentDescription = "KLIP score, research use only"
    dataset.ContentCreatorName = ""
    dataset.ContentQualification = "RESEARCH"
    dataset.DerivationDescription = "KLIP score of every voxel; settings in Image Comments"
    dataset.AcquisitionContextSequence = []
    dataset.RecognizableVisualFeatures = "NO"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.NumberOfFrames = len(results.score)
    dataset.SharedFunctionalGroupsSequence = [_shared(context, region)]
    add_dimensions(
        dataset, context, "pm", ("ImagePositionPatient", "PlanePositionSequence", "Position of the slice")
    )
    dataset.PerFrameFunctionalGroupsSequence = [
        frame_groups(context, k, (k + 1,), KLIP_SCORING) for k in range(len(results.score))
    ]
    dataset.ReferencedSeriesSequence = [referenced_series(context)]
    dataset.FloatPixelData = np.ascontiguousarray(results.score, dtype="<f4").tobytes()
    return dataset


def _shared(context: Context, region: Dataset) -> Dataset:
    """Everything that holds for all frames (C.8.32.3, C.7.6.16.2)."""
    groups = shared_groups(context.results.geometry)
    anatomy, frame_type, identity, voi = Dataset(), Dataset(), Dataset(), Dataset()
    anatomy.AnatomicRegionSequence = [region]
    anatomy.FrameLaterality = "U"
    frame_type.FrameType = _FRAME_TYPE
    identity.RescaleIntercept, identity.RescaleSlope, identity.RescaleType = 0, 1, "US"
    low, high = _range(context)
    voi.VOILUTFunction = "LINEAR_EXACT"
    voi.WindowCenter, voi.WindowWidth = decimals([(low + high) / 2, high - low])
    groups.FrameAnatomySequence = [anatomy]
    groups.ParametricMapFrameTypeSequence = [frame_type]
    groups.PixelValueTransformationSequence = [identity]
    groups.FrameVOILUTSequence = [voi]
    groups.RealWorldValueMappingSequence = [_mapping(context)]
    return groups


def _mapping(context: Context) -> Dataset:
    """Stored values are the score itself, without a unit (C.7.6.16.2.11)."""
    low, high = _range(context)
    quantity = Dataset()
    quantity.ValueType = "CODE"
    quantity.ConceptNameCodeSequence = [QUANTITY.dataset()]
    quantity.ConceptCodeSequence = [SCORE.dataset()]
    mapping = Dataset()
    mapping.DoubleFloatRealWorldValueFirstValueMapped = low
    mapping.DoubleFloatRealWorldValueLastValueMapped = high
    mapping.RealWorldValueIntercept, mapping.RealWorldValueSlope = 0.0, 1.0
    mapping.LUTExplanation = "KLIP score: how strongly the measurement pulls against the prior"
    mapping.LUTLabel = "KLIP_SCORE"
    mapping.MeasurementUnitsCodeSequence = [NO_UNITS.dataset()]
    mapping.QuantityDefinitionSequence = [quantity]
    return mapping


def _range(context: Context) -> tuple[float, float]:
    """Lowest and highest score, apart where all scores are the same."""
    low, high = float(context.results.score.min()), float(context.results.score.max())
    return low, high if high > low else low + 1.0
