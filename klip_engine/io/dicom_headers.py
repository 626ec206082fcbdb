"""DICOM headers of CT slices: classic (one file, one slice) and enhanced multi-frame (one file, many).

Only the tags a reader of voxels needs are read at all; patient data never enters the program from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from klip_engine.errors import InputError

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2.1"
LEGACY_CONVERTED_ENHANCED_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2.2"
CT_CLASSES = (CT_IMAGE, ENHANCED_CT_IMAGE, LEGACY_CONVERTED_ENHANCED_CT_IMAGE)
MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

_TAGS = [
    "SOPClassUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "ImageType",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PixelSpacing",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "GantryDetectorTilt",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]

_ORIENTATION_TOLERANCE = 1e-2


@dataclass(frozen=True)
class FileHeader:
    """What kind of object a DICOM file holds, before anything is asked of it."""

    path: Path
    dataset: Dataset

    @property
    def sop_class(self) -> str:
        """SOP Class UID (PS3.4 B.5), empty where missing."""
        return str(self.dataset.get("SOPClassUID", ""))

    @property
    def modality(self) -> str:
        """Modality (PS3.3 C.7.3.1.1.1), empty where missing."""
        return str(self.dataset.get("Modality", ""))

    @property
    def series(self) -> str:
        """SeriesInstanceUID, empty where missing."""
        return str(self.dataset.get("SeriesInstanceUID", ""))

    @property
    def series_number(self) -> str:
        """SeriesNumber as text, '?' where missing."""
        number = self.dataset.get("SeriesNumber")
        return "?" if number is None else str(number)

    @property
    def is_image(self) -> bool:
        """True for everything with pixels; dose reports, presentation states and the like have none."""
        return "Rows" in self.dataset and "Columns" in self.dataset

    @property
    def is_ct(self) -> bool:
        """True for CT images, localizers included."""
        return self.sop_class in CT_CLASSES and self.modality == "CT" and self.is_image

    @property
    def frames(self) -> int:
        """NumberOfFrames, 1 for a classic CT image."""
        return int(self.dataset.get("NumberOfFrames") or 1)


@dataclass(frozen=True)
class SliceHeader:
    """One CT slice before its pixels are read (PS3.3 C.7.6.2 Image Plane, C.8.2.1 CT Image).

    frame: index in a multi-frame file, None in a classic one; position: LPS mm of the centre of the first
    pixel; row, column: LPS unit vectors along increasing column index and increasing row index; spacing: mm
    along (x = columns, y = rows); size: pixels along (x, y); thickness: mm or None; slope, intercept: from
    stored values to HU; tilt: declared gantry tilt in degrees, 0 where none is declared.
    """

    path: Path
    frame: int | None
    position: npt.NDArray[np.float64]
    row: npt.NDArray[np.float64]
    column: npt.NDArray[np.float64]
    spacing: tuple[float, float]
    size: tuple[int, int]
    thickness: float | None
    slope: float
    intercept: float
    tilt: float
    is_localizer: bool

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """LPS unit vector perpendicular to the slice: row x column."""
        return np.cross(self.row, self.column)


def is_dicom(path: Path) -> bool:
    """True when the file starts like DICOM: the prefix of PS3.10 7.1, or a data set written without it."""
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its permissions") from error
    return start[128:132] == b"DICM" or start[:4] in (
        b"\x08\x00\x00\x00",
        b"\x08\x00\x05\x00",
        b"\x08\x00\x08\x00",
    )


def read_header(path: Path) -> FileHeader:
    """Read the tags that place a slice, without pixels. Raises InputError when the file is damaged."""
    try:
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(_TAGS))
    except (OSError, ValueError, KeyError, EOFError, AttributeError, InvalidDicomError) as error:
        raise damaged(path) from error
    if not dataset and "MediaStorageSOPClassUID" not in dataset.file_meta:
        raise damaged(path)
    return FileHeader(path, dataset)


def damaged(path: Path) -> InputError:
    """The error for a DICOM file whose bytes cannot be parsed."""
    return InputError(f"{path} is a damaged or incomplete DICOM file; export it again")


def slice_headers(file: FileHeader) -> Iterator[SliceHeader]:
    """The slices in one CT file, in the order they are stored.

    Raises InputError when a slice's place, size or rescale is missing or makes no sense.
    """
    try:
        if file.sop_class == CT_IMAGE:
            yield _slice(file, None, [file.dataset])
        else:
            yield from (_slice(file, frame, groups) for frame, groups in enumerate(_functional_groups(file)))
    except (TypeError, ValueError, IndexError) as error:
        raise damaged(file.path) from error


def _functional_groups(file: FileHeader) -> Iterator[list[Dataset]]:
    """For each frame the data sets its attributes may stand in, nearest first (PS3.3 A.38 and C.7.6.16)."""
    shared = list(file.dataset.get("SharedFunctionalGroupsSequence") or [])
    per_frame = list(file.dataset.get("PerFrameFunctionalGroupsSequence") or [])
    if len(per_frame) != file.frames:
        raise InputError(
            f"{file.path} announces {file.frames} frames but places {len(per_frame)} of them; export it again"
        )
    for own in per_frame:
        groups: list[Dataset] = []
        for functional_groups in (own, *shared):
            for element in functional_groups:
                if element.VR == "SQ" and len(element.value):
                    groups.append(element.value[0])
        yield [*groups, file.dataset]


def _slice(file: FileHeader, frame: int | None, groups: Sequence[Dataset]) -> SliceHeader:
    where = str(file.path) if frame is None else f"frame {frame + 1} of {file.path}"
    if int(file.dataset.get("SamplesPerPixel", 1)) != 1:
        raise InputError(f"{file.path} is a colour picture: this is not CT; leave it out of the folder")
    row_spacing, column_spacing = _numbers(groups, "PixelSpacing", 2, where)
    row, column = _axes(_numbers(groups, "ImageOrientationPatient", 6, where), where)
    thickness = _find(groups, "SliceThickness")
    slope, intercept = _rescale(groups, where)
    return SliceHeader(
        path=file.path,
        frame=frame,
        position=_numbers(groups, "ImagePositionPatient", 3, where),
        row=row,
        column=column,
        spacing=(float(column_spacing), float(row_spacing)),
        size=(int(file.dataset.Columns), int(file.dataset.Rows)),
        thickness=float(thickness) if thickness else None,
        slope=slope,
        intercept=intercept,
        tilt=float(_find(groups, "GantryDetectorTilt") or 0.0),
        is_localizer="LOCALIZER" in [str(v).upper() for v in _image_type(groups)],
    )


def _rescale(groups: Sequence[Dataset], where: str) -> tuple[float, float]:
    """Slope and intercept from stored values to HU (PS3.3 C.8.2.1, C.7.6.16.2.9b)."""
    slope, intercept = (_find(groups, keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if intercept is None or slope is None:
        missing = "RescaleIntercept" if intercept is None else "RescaleSlope"
        raise InputError(
            f"{where} has no {missing}, so Hounsfield units cannot be computed; export the original series"
        )
    unit = str(_find(groups, "RescaleType") or "HU").upper()
    if unit not in ("HU", "HU_MOD", "US"):
        raise InputError(
            f"{where} holds values in '{unit}', not Hounsfield units; choose the CT series of the study"
        )
    if float(slope) == 0:
        raise InputError(f"{where} has a RescaleSlope of zero, so Hounsfield units cannot be computed")
    return float(slope), float(intercept)


def _axes(cosines: npt.NDArray[np.float64], where: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Row and column direction as exactly perpendicular unit vectors; files round the cosines."""
    row, column = cosines[:3], cosines[3:]
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if np.abs(lengths - 1).max() > _ORIENTATION_TOLERANCE or abs(row @ column) > _ORIENTATION_TOLERANCE:
        raise InputError(
            f"the ImageOrientationPatient of {where} is not a pair of perpendicular unit vectors; "
            "export the original series"
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    return row, column / np.linalg.norm(column)


def _numbers(groups: Sequence[Dataset], keyword: str, count: int, where: str) -> npt.NDArray[np.float64]:
    value = _find(groups, keyword)
    numbers = np.atleast_1d(np.asarray([] if value is None else value, dtype=np.float64))
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise InputError(
            f"{where} has no usable {keyword}, so its place in the patient is unknown; export the original series"
        )
    return numbers


def _image_type(groups: Sequence[Dataset]) -> Sequence[Any]:
    """ImageType of a classic image, FrameType of a frame (PS3.3 C.8.16.1)."""
    value = _find(groups, "FrameType") or _find(groups, "ImageType") or []
    return [value] if isinstance(value, str) else value


def _find(groups: Sequence[Dataset], keyword: str) -> Any:
    """The first value of an attribute that is present and not empty, else None."""
    return next((g[keyword].value for g in groups if keyword in g and g[keyword].value not in (None, "")), None)
