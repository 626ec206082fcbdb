"""The summary page as a Secondary Capture, for viewers that show nothing else (PS3.3 A.8.1, C.8.6)."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from klip_engine.io.dicom_results.codes import SOURCE_IMAGE
from klip_engine.io.dicom_results.composite import (
    Context,
    add_image_facts,
    body_part,
    instance_reference,
    new_object,
)
from klip_engine.io.dicom_results.objects import DicomObject
from klip_engine.io.dicom_results.summary_page import summary_page


def secondary_capture(context: Context) -> Dataset:
    """Secondary Capture Image Storage, RGB: the strongest findings and the notice burned in, no patient data."""
    picture = summary_page(context.results, context.source.volume)
    dataset = new_object(context, DicomObject.SC, SecondaryCaptureImageStorage, "OT", "KLIP summary")
    add_image_facts(dataset, context)
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BodyPartExamined, _ = body_part(context)
    dataset.PatientOrientation = ""
    dataset.DerivationDescription = "Picture of the strongest KLIP findings; settings in Image Comments"
    dataset.Rows, dataset.Columns = picture.shape[:2]
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    dataset.SourceImageSequence = [_source_image(*one) for one in context.source.instances]
    pixels = picture.tobytes()
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    return dataset


def _source_image(sop_class: str, sop_instance: str) -> Dataset:
    item = instance_reference(sop_class, sop_instance)
    item.PurposeOfReferenceCodeSequence = [SOURCE_IMAGE.dataset()]
    return item
