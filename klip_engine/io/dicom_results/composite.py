"""What every object of a result has in common: patient and study of the source, equipment, dates."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from klip_engine.detection import NOTICE
from klip_engine.io.dicom_results.codes import ARTIFICIAL_INTELLIGENCE, BODY_PARTS, ENTIRE_BODY, PRIVATE_SCHEME
from klip_engine.io.dicom_results.objects import DicomObject
from klip_engine.io.dicom_results.source import SourceSeries
from klip_engine.io.dicom_results.uids import IMPLEMENTATION, ResultUids
from klip_engine.io.dicom_results.written import WrittenResults
from klip_engine.version import __version__

ALGORITHM = "KLIP"
MANUFACTURER = "KLIP for 3D Slicer"
RESEARCH_ONLY = "research use only"

_COPIED = (
    # Patient (PS3.3 C.7.1.1), without comments and pictures
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "TypeOfPatientID",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientSex",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "EthnicGroup",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    # General Study (C.7.2.1)
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "ReferringPhysicianIdentificationSequence",
    "StudyID",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
    "ProcedureCodeSequence",
    "PhysiciansOfRecord",
    # Patient Study (C.7.2.2)
    "AdmittingDiagnosesDescription",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    # Clinical Trial Subject and Study (C.7.1.3, C.7.2.3)
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
)
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
_DATES = ("Content", "Acquisition", "Series", "Study")
_NUMBER_OF = {kind: number for number, kind in enumerate(DicomObject, start=1)}


@dataclass(frozen=True)
class Context:
    """What the writer of an object needs: the result, the series it was made from, and the UIDs."""

    results: WrittenResults
    source: SourceSeries
    uids: ResultUids

    def instance_uid(self, kind: DicomObject) -> str:
        """SOP Instance UID of an object of this result, whether or not it is written."""
        return self.uids.uid(kind, "instance")

    @property
    def algorithm_version(self) -> str:
        """The engine that found the regions."""
        return str(self.results.document.get("engine", __version__))

    @property
    def frame_of_reference(self) -> str:
        """That of the source; one of its own where the source has none."""
        return str(self.source.header.get("FrameOfReferenceUID") or self.uids.uid("frame of reference"))


def new_object(context: Context, kind: DicomObject, sop_class: str, modality: str, description: str) -> Dataset:
    """A data set with patient, study, series, equipment and SOP common modules (PS3.3 C.7.1 to C.7.5, C.12.1).

    The content date is that of the source: the result says something about that moment, and the same result is the
    same file whenever it is written, as the same UID demands.
    """
    header = context.source.header
    dataset = Dataset()
    dataset.preamble = b"\0" * 128
    dataset.file_meta = _file_meta(sop_class, context.instance_uid(kind))
    if header.get("SpecificCharacterSet"):
        dataset.SpecificCharacterSet = copy.copy(header.SpecificCharacterSet)
    for keyword in _COPIED:
        _copy(header, keyword, dataset)
    for keyword in _TYPE_2:
        if keyword not in dataset:
            setattr(dataset, keyword, "")
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = context.instance_uid(kind)
    dataset.InstanceNumber = 1
    dataset.Modality = modality
    dataset.SeriesInstanceUID = context.uids.uid(kind, "series")
    dataset.SeriesNumber = _series_number(header, kind)
    dataset.SeriesDescription = f"{description} ({RESEARCH_ONLY})"
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = "klip-engine"
    dataset.DeviceSerialNumber = context.algorithm_version
    dataset.SoftwareVersions = context.algorithm_version
    dataset.ContentDate, dataset.ContentTime = _moment(header)
    dataset.CodingSchemeIdentificationSequence = [_private_scheme()]
    return dataset


def add_image_facts(dataset: Dataset, context: Context) -> None:
    """Notice and settings, burned-in text and compression history of an object with pixels (PS3.3 C.7.6.1)."""
    header = context.source.header
    dataset.ImageComments = f"{NOTICE} {ALGORITHM} {context.algorithm_version}: {settings_text(context)}"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    if header.get("LossyImageCompression") == "01":
        dataset.LossyImageCompression = "01"
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if header.get(keyword):
                setattr(dataset, keyword, copy.copy(header[keyword].value))


def settings_text(context: Context) -> str:
    """All that is needed to run it again, as one line of JSON: readers keep only the first parameter."""
    document = context.results.document
    facts = {
        "engine": document.get("engine"),
        "prior": document.get("prior"),
        "settings": document.get("settings"),
        "threshold": context.results.threshold,
    }
    return json.dumps(facts, separators=(",", ":"), sort_keys=True)


def algorithm(context: Context) -> Dataset:
    """An item of an algorithm identification sequence (PS3.3 10.16)."""
    item = Dataset()
    item.AlgorithmFamilyCodeSequence = [ARTIFICIAL_INTELLIGENCE.dataset()]
    item.AlgorithmName = ALGORITHM
    item.AlgorithmVersion = context.algorithm_version
    item.AlgorithmSource = MANUFACTURER
    item.AlgorithmParameters = settings_text(context)
    return item


def body_part(context: Context) -> tuple[str, Dataset]:
    """Body Part Examined and the code of the anatomic region; the whole body where the source does not say."""
    name = str(context.source.header.get("BodyPartExamined") or "").strip().upper().replace(" ", "")
    if name in BODY_PARTS:
        return name, BODY_PARTS[name].dataset()
    return ENTIRE_BODY[0], ENTIRE_BODY[1].dataset()


def referenced_series(context: Context) -> Dataset:
    """Every instance of the source once, as an item of Referenced Series Sequence (PS3.3 C.12.2)."""
    item = Dataset()
    item.SeriesInstanceUID = context.source.series_uid
    item.ReferencedInstanceSequence = [instance_reference(*one) for one in context.source.instances]
    return item


def instance_reference(sop_class: str, sop_instance: str) -> Dataset:
    """An item that refers to an instance (PS3.3 10.8)."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = sop_instance
    return item


def _copy(header: Dataset, keyword: str, dataset: Dataset) -> None:
    """An attribute as the source has it, in its own character set; not one whose value cannot be read."""
    if keyword not in header:
        return
    try:
        dataset[keyword] = copy.deepcopy(header[keyword])
    except (ValueError, TypeError, LookupError, OverflowError, NotImplementedError):
        return


def _file_meta(sop_class: str, instance: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(instance)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION)
    meta.ImplementationVersionName = f"KLIP_{__version__}"[:16]
    return meta


def _series_number(header: Dataset, kind: DicomObject) -> int:
    """The source's number times a hundred, so that results sort behind their series in lists."""
    number = header.get("SeriesNumber")
    source: Any = 90 if number is None or not 0 < int(number) < 1_000_000 else int(number)
    return int(source * 100 + _NUMBER_OF[kind])


def _moment(header: Dataset) -> tuple[str, str]:
    """Date and time of the source, the nearest to its pixels that it states; one long ago where it states none."""
    for name in _DATES:
        date = str(header.get(f"{name}Date") or "")
        if date:
            return date, str(header.get(f"{name}Time") or "000000")
    return "19000101", "000000"


def _private_scheme() -> Dataset:
    item = Dataset()
    item.CodingSchemeDesignator = PRIVATE_SCHEME
    item.CodingSchemeName = "Concepts of KLIP for 3D Slicer"
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    return item
