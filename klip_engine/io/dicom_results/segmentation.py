"""Findings as a DICOM Segmentation: BINARY with one segment each, or a compact LABELMAP (PS3.3 A.51, C.8.20)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import UID, RLELossless, SegmentationStorage

from klip_engine.detection import NOTICE, Finding
from klip_engine.io.dicom_results.codes import BACKGROUND, MORPHOLOGICALLY_ABNORMAL, SEGMENTATION, SUSPICIOUS_REGION
from klip_engine.io.dicom_results.colours import cielab, finding_colour
from klip_engine.io.dicom_results.composite import (
    ALGORITHM,
    Context,
    add_image_facts,
    algorithm,
    body_part,
    new_object,
    referenced_series,
)
from klip_engine.io.dicom_results.multiframe import add_dimensions, add_space, frame_groups, shared_groups
from klip_engine.io.dicom_results.objects import DicomObject
from klip_engine.io.dicom_results.written import WrittenResults

LABEL_MAP_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""Label Map Segmentation Storage, which pydicom 3.0 has no name for."""

_POSITION = ("ImagePositionPatient", "PlanePositionSequence", "Position of the slice")
_SEGMENT = ("ReferencedSegmentNumber", "SegmentIdentificationSequence", "Segment")


def segmentation(context: Context) -> Dataset | None:
    """Segmentation Storage, BINARY: one segment per finding, the strongest is number 1; None without findings.

    Only frames with a voxel of their segment are stored, ordered by segment and then along the slice normal.
    """
    marked = context.results.marked
    if not marked:
        return None
    dataset = _segmentation(context, DicomObject.SEG, SegmentationStorage, "BINARY")
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.SegmentSequence = [_segment(context, finding, n) for n, finding in enumerate(marked, start=1)]
    add_dimensions(dataset, context, "seg", _SEGMENT, _POSITION)
    frames = list(_binary_frames(context.results, [finding.label for finding in marked]))
    height = {k: n for n, k in enumerate(sorted({k for _, k in frames}), start=1)}
    groups = []
    for number, k in frames:
        group = frame_groups(context, k, (number, height[k]), SEGMENTATION)
        identification = Dataset()
        identification.ReferencedSegmentNumber = number
        group.SegmentIdentificationSequence = [identification]
        groups.append(group)
    _add_frames(dataset, groups)
    dataset.PixelData = _packed(context.results.regions, [(marked[n - 1].label, k) for n, k in frames])
    return dataset


def label_map(context: Context) -> Dataset | None:
    """Label Map Segmentation Storage, RLE: one frame a slice, voxels hold the number of their segment.

    None without findings. Voxels of 0 are background, declared as padding and as segment 0 (PS3.3 C.8.20.2).
    Validators and archives from before 2024 do not know this class.
    """
    marked = context.results.marked
    if not marked:
        return None
    dataset = _segmentation(context, DicomObject.LABELMAP, LABEL_MAP_STORAGE, "LABELMAP")
    kind = np.uint8 if len(marked) < 256 else np.uint16
    bits = 8 * kind().itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelPaddingValue = 0
    segments = [_segment(context, finding, n) for n, finding in enumerate(marked, start=1)]
    dataset.SegmentSequence = [_background(), *segments]
    add_dimensions(dataset, context, "labelmap", _POSITION)
    numbers = np.zeros(int(context.results.regions.max()) + 1, dtype=kind)
    numbers[[finding.label for finding in marked]] = np.arange(1, len(marked) + 1)
    slices = [k for k, here in enumerate(context.results.labels_of_slices) if here]
    _add_frames(dataset, [frame_groups(context, k, (n,), SEGMENTATION) for n, k in enumerate(slices, start=1)])
    dataset.PixelData = encapsulate([_run_lengths(dataset, numbers[context.results.regions[k]]) for k in slices])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = RLELossless
    return dataset


def segment_numbers(context: Context) -> dict[int, int]:
    """Label in the label map to segment number, counted from 1 without gaps (PS3.3 C.8.20.2)."""
    return {finding.label: number for number, finding in enumerate(context.results.marked, start=1)}


def segment_label(finding: Finding) -> str:
    """The name of a segment in lists."""
    p_value = "" if finding.p_value is None else f", p {finding.p_value:.3g}"
    return f"Finding {finding.label} (score {finding.score:.3g}{p_value})"


def tracking(context: Context, finding: Finding) -> tuple[str, str]:
    """Tracking ID and UID of a finding, the same in segmentation and report."""
    return f"{ALGORITHM} finding {finding.label}", context.uids.uid("finding", finding.label)


def _segmentation(context: Context, kind: DicomObject, sop_class: str, segmentation_type: str) -> Dataset:
    dataset = new_object(context, kind, sop_class, "SEG", "KLIP suspicious regions")
    add_space(dataset, context)
    add_image_facts(dataset, context)
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.BodyPartExamined, _ = body_part(context)
    dataset.ContentLabel = "KLIP_REGIONS"
    dataset.ContentDescription = "Suspicious regions, research use only"
    dataset.ContentCreatorName = ""
    dataset.PixelRepresentation = 0
    dataset.SegmentationType = segmentation_type
    dataset.SegmentsOverlap = "NO"
    dataset.SharedFunctionalGroupsSequence = [shared_groups(context.results.geometry)]
    dataset.ReferencedSeriesSequence = [referenced_series(context)]
    return dataset


def _segment(context: Context, finding: Finding, number: int) -> Dataset:
    """Segment Description (C.8.20.4)."""
    segment = Dataset()
    segment.SegmentNumber = number
    segment.SegmentLabel = segment_label(finding)
    segment.SegmentDescription = f"Score above the threshold. {NOTICE}"
    segment.SegmentAlgorithmType = "AUTOMATIC"
    segment.SegmentAlgorithmName = ALGORITHM
    segment.SegmentationAlgorithmIdentificationSequence = [algorithm(context)]
    segment.SegmentedPropertyCategoryCodeSequence = [MORPHOLOGICALLY_ABNORMAL.dataset()]
    segment.SegmentedPropertyTypeCodeSequence = [SUSPICIOUS_REGION.dataset()]
    segment.RecommendedDisplayCIELabValue = cielab(finding_colour(finding.score, context.results.findings))
    segment.TrackingID, segment.TrackingUID = tracking(context, finding)
    return segment


def _background() -> Dataset:
    """The segment of a label map that holds everything else."""
    segment = Dataset()
    segment.SegmentNumber = 0
    segment.SegmentLabel = "Background"
    segment.SegmentAlgorithmType = "AUTOMATIC"
    segment.SegmentAlgorithmName = ALGORITHM
    segment.SegmentedPropertyCategoryCodeSequence = [BACKGROUND.dataset()]
    segment.SegmentedPropertyTypeCodeSequence = [BACKGROUND.dataset()]
    return segment


def _add_frames(dataset: Dataset, groups: list[Dataset]) -> None:
    dataset.NumberOfFrames = len(groups)
    dataset.PerFrameFunctionalGroupsSequence = groups


def _binary_frames(results: WrittenResults, labels: list[int]) -> Iterator[tuple[int, int]]:
    """(segment number, slice) of every frame that is not empty, in the order they are stored."""
    for number, label in enumerate(labels, start=1):
        yield from ((number, k) for k, here in enumerate(results.labels_of_slices) if label in here)


def _packed(regions: npt.NDArray[np.uint16], frames: Iterable[tuple[int, int]]) -> bytes:
    """One bit a voxel, the first in the lowest bit, frames without gaps between them, an even number of bytes
    (PS3.5 8.1.1, 8.2)."""
    planes = (regions[k] == label for label, k in frames)
    if regions[0].size % 8 == 0:  # frame by frame: unpacked, all of them would take eight times the room
        packed = b"".join(np.packbits(plane, bitorder="little").tobytes() for plane in planes)
    else:
        packed = np.packbits(np.concatenate([plane.ravel() for plane in planes]), bitorder="little").tobytes()
    return packed + b"\0" * (len(packed) % 2)


def _run_lengths(dataset: Dataset, plane: npt.NDArray[np.unsignedinteger]) -> bytes:
    """A frame in RLE Lossless (PS3.5 Annex G).

    By pydicom's own encoder: the one of GDCM 3.0 ends the process where rows do not compress to its liking.
    """
    encoded: bytes = get_encoder(RLELossless).encode(
        plane.tobytes(),
        rows=dataset.Rows,
        columns=dataset.Columns,
        samples_per_pixel=1,
        bits_allocated=dataset.BitsAllocated,
        bits_stored=dataset.BitsStored,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
        number_of_frames=1,
        encoding_plugin="pydicom",
    )
    return encoded
