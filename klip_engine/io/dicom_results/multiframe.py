"""Frames of a multi-frame object in the grid of the result (PS3.3 C.7.6.16 and C.7.6.17)."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.valuerep import DSfloat

from klip_engine.io.dicom_results.codes import SOURCE_IMAGE, Code
from klip_engine.io.dicom_results.composite import Context, instance_reference
from klip_engine.volume import Geometry


def add_space(dataset: Dataset, context: Context) -> None:
    """Frame of Reference and the size of a frame (PS3.3 C.7.4.1, C.7.6.3)."""
    dataset.FrameOfReferenceUID = context.frame_of_reference
    dataset.PositionReferenceIndicator = str(context.source.header.get("PositionReferenceIndicator") or "")
    dataset.Columns, dataset.Rows = context.results.geometry.size[:2]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"


def shared_groups(geometry: Geometry) -> Dataset:
    """Pixel Measures and Plane Orientation, the same for all frames (C.7.6.16.2.1, C.7.6.16.2.4)."""
    columns_mm, rows_mm, slices_mm = geometry.spacing
    measures, orientation, groups = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = decimals([rows_mm, columns_mm])
    measures.SliceThickness = measures.SpacingBetweenSlices = decimals([slices_mm])[0]
    matrix = geometry.direction
    orientation.ImageOrientationPatient = decimals([matrix[i] for i in (0, 3, 6, 1, 4, 7)])
    groups.PixelMeasuresSequence = [measures]
    groups.PlaneOrientationSequence = [orientation]
    return groups


def frame_groups(context: Context, k: int, indices: Sequence[int], derivation: Code) -> Dataset:
    """Frame Content, Plane Position and Derivation Image of a frame on slice k of the result.

    indices: its Dimension Index Values.
    """
    content, place, groups = Dataset(), Dataset(), Dataset()
    content.DimensionIndexValues = list(indices)
    content.StackID = "1"
    content.InStackPositionNumber = k + 1
    place.ImagePositionPatient = decimals(context.results.geometry.to_lps((0, 0, k)).tolist())
    groups.FrameContentSequence = [content]
    groups.PlanePositionSequence = [place]
    groups.DerivationImageSequence = [_derivation(context, k, derivation)]
    return groups


def add_dimensions(dataset: Dataset, context: Context, name: str, *pointers: tuple[str, str, str]) -> None:
    """Multi-frame Dimension module (C.7.6.17); pointers: keyword, functional group and label of each."""
    uid = context.uids.uid(name, "dimensions")
    organization = Dataset()
    organization.DimensionOrganizationUID = uid
    dataset.DimensionOrganizationSequence = [organization]
    items = []
    for keyword, group, label in pointers:
        item = Dataset()
        item.DimensionOrganizationUID = uid
        item.DimensionIndexPointer = Tag(keyword)
        item.FunctionalGroupPointer = Tag(group)
        item.DimensionDescriptionLabel = label
        items.append(item)
    dataset.DimensionIndexSequence = items


def decimals(values: Sequence[float]) -> list[DSfloat]:
    """Decimal strings of at most 16 characters (PS3.5 6.2)."""
    return [DSfloat(float(value) + 0.0, auto_format=True) for value in values]


def _derivation(context: Context, k: int, code: Code) -> Dataset:
    """The source slice behind slice k (C.7.6.16.2.6)."""
    image = context.source.images[k]
    reference = instance_reference(image.sop_class, image.sop_instance)
    if image.frame is not None:
        reference.ReferencedFrameNumber = image.frame
    reference.PurposeOfReferenceCodeSequence = [SOURCE_IMAGE.dataset()]
    reference.SpatialLocationsPreserved = "YES" if image.is_same_place else "NO"
    item = Dataset()
    item.DerivationCodeSequence = [code.dataset()]
    item.SourceImageSequence = [reference]
    return item
