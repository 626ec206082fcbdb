"""What kind of object a DICOM file holds, from the tags a reader of voxels needs; patient data is never read."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from klip_engine.errors import InputError, KlipError
from klip_engine.io.bounded_file import BoundedFile
from klip_engine.io.dicom_deflated import check_inflated_size

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2.1"
LEGACY_CONVERTED_ENHANCED_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2.2"
CT_CLASSES = (CT_IMAGE, ENHANCED_CT_IMAGE, LEGACY_CONVERTED_ENHANCED_CT_IMAGE)
MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "ImageType",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "LossyImageCompression",
    "PixelSpacing",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "GantryDetectorTilt",
    "ConvolutionKernel",
    "TemporalPositionIdentifier",
    "ConcatenationUID",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]


@dataclass(frozen=True)
class FileHeader:
    """The tags of one DICOM file, before anything is asked of it; texts are empty where the tag is missing.

    instance: SOPInstanceUID; series_number: '?' where missing; frames: NumberOfFrames, 1 for a classic image;
    image_type: values of ImageType (PS3.3 C.7.6.1.1.2) in capitals; bytes: length of the file.
    """

    path: Path
    dataset: Dataset
    sop_class: str
    instance: str
    study: str
    series: str
    transfer_syntax: str
    series_number: str
    modality: str
    rows: int
    columns: int
    frames: int
    image_type: tuple[str, ...]
    bytes: int

    @property
    def is_directory(self) -> bool:
        """True for a DICOMDIR (PS3.3 F.3)."""
        return self.sop_class == MEDIA_STORAGE_DIRECTORY

    @property
    def is_image(self) -> bool:
        """True for everything with pixels; dose reports, presentation states and the like have none."""
        return self.rows > 0 and self.columns > 0

    @property
    def is_ct(self) -> bool:
        """True for CT images, localizers included, and for what is left of one."""
        return self.sop_class in CT_CLASSES and self.modality == "CT"

    @property
    def is_localizer(self) -> bool:
        """ImageType value 3 (PS3.3 C.8.2.1.1.1); an enhanced file may mix, its frames tell."""
        return "LOCALIZER" in self.image_type

    @property
    def slices(self) -> int:
        """Frames that are no localizer, as far as this header tells."""
        return 0 if self.is_localizer else self.frames


def is_dicom(path: Path) -> bool:
    """True when the file starts like DICOM: the prefix of PS3.10 7.1, or a data set written without it."""
    try:
        with path.open("rb") as stream:
            return starts_like_dicom(stream.read(132))
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its permissions") from error


def starts_like_dicom(start: bytes) -> bool:
    """The same for the first 132 bytes of a file."""
    return start[128:132] == b"DICM" or start[:4] in (
        b"\x08\x00\x00\x00",
        b"\x08\x00\x05\x00",
        b"\x08\x00\x08\x00",
    )


def read_header(path: Path) -> FileHeader:
    """Read the tags that place a slice, without pixels. Raises InputError when the file is damaged."""
    with parsing(path):
        check_inflated_size(path)
        with BoundedFile(path) as stream:
            dataset = pydicom.dcmread(stream, force=True, stop_before_pixels=True, specific_tags=list(_TAGS))
        for _ in (*dataset.iterall(), *dataset.file_meta):
            pass  # converts every value now, so that nothing can fail later
        sop_class = str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or "")
        if not dataset and not sop_class:
            raise damaged(path)
        number = dataset.get("SeriesNumber")
        return FileHeader(
            path=path,
            dataset=dataset,
            sop_class=sop_class,
            instance=str(dataset.get("SOPInstanceUID") or ""),
            study=str(dataset.get("StudyInstanceUID") or ""),
            series=str(dataset.get("SeriesInstanceUID") or ""),
            transfer_syntax=str(dataset.file_meta.get("TransferSyntaxUID") or ""),
            series_number="?" if number is None else str(number),
            modality=str(dataset.get("Modality") or ""),
            rows=int(dataset.get("Rows") or 0),
            columns=int(dataset.get("Columns") or 0),
            frames=max(int(dataset.get("NumberOfFrames") or 1), 1),
            image_type=texts(dataset.get("ImageType")),
            bytes=path.stat().st_size,
        )


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """Whatever pydicom trips over in a damaged file becomes one InputError."""
    try:
        with quiet():
            yield
    except KlipError:
        raise
    except PermissionError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its permissions") from error
    except Exception as error:  # pydicom raises whatever its parsing trips over, struct.error to RecursionError
        raise damaged(path) from error


@contextmanager
def quiet() -> Iterator[None]:
    """pydicom warns and logs of every oddity, quoting values that may name a patient; what matters is raised."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def damaged(path: Path) -> InputError:
    """The error for a DICOM file whose bytes cannot be parsed."""
    return InputError(f"{path} is a damaged or incomplete DICOM file; export it again")


def texts(value: Any) -> tuple[str, ...]:
    """The values of a text attribute in capitals, whether it has none, one or several."""
    return tuple(one.upper() for one in stored_texts(value))


def stored_texts(value: Any) -> tuple[str, ...]:
    """The same as they were stored, without the blanks around them."""
    if value in (None, ""):
        return ()
    return tuple(str(one).strip() for one in ([value] if isinstance(value, str) else value))


def pseudonym(uid: str) -> str:
    """Tells two series apart without naming either."""
    return hashlib.sha256(uid.encode()).hexdigest()[:16]
