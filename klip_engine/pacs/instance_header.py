"""Which study, series and instance a file belongs to, read without its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import dcmread, read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from klip_engine.errors import InputError

_TAGS: list[str | int | tuple[int, int]] = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
]


@dataclass(frozen=True)
class InstanceHeader:
    """The identifiers every composite instance has (PS3.3 C.7.2.1, C.7.3.1, C.12.1)."""

    study: str
    series: str
    instance: str
    sop_class: str
    modality: str


def read_instance_header(file: Path) -> InstanceHeader:
    """The header of a DICOM file (PS3.10). Raises InputError when it is damaged or an identifier is missing.

    A UID is taken as it is, be it ever so odd, as long as it is short and printable: real devices write such
    ones. Deflated data sets are refused: a small one may hold any amount.
    """
    try:
        if read_file_meta_info(file).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise InputError("the data set is deflated, which this service does not take; send it uncompressed")
        dataset = dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
        study, series, instance, sop_class, modality = (
            _text(dataset, keyword)
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality")
        )
    except InputError:
        raise
    except Exception as error:  # pydicom raises whatever its parts raise, and this reads what strangers send
        raise InputError("the data set is damaged") from error
    for name, uid in {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "SOPInstanceUID": instance,
        "SOPClassUID": sop_class,
    }.items():
        if not uid or len(uid) > 128 or not uid.isprintable():
            raise InputError(f"the data set has no usable {name}")
    return InstanceHeader(study, series, instance, sop_class, modality)


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip().strip("\0")
