"""The slices in a CT file: one in a classic image, many in an enhanced multi-frame image.

Place, size, rescale and what else a slice's header says; pixels are read later (dicom_pixels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from klip_engine.errors import InputError
from klip_engine.io.dicom_enhanced import frame_groups
from klip_engine.io.dicom_headers import CT_IMAGE, FileHeader, parsing, stored_texts, texts

_ORIENTATION_TOLERANCE = 1e-2
_LARGEST_MATRIX = 8192
_FARTHEST_MM = 1e5
_PROJECTIONS = {"MAX_IP", "MIN_IP", "AVERAGE_IP", "VOLUME_RENDER", "SURFACE_RENDER", "CURVED_MPR"}
"""Volume Based Calculation Technique (PS3.3 C.8.16.2.1.4) of pictures made from a scan."""


@dataclass(frozen=True)
class SliceHeader:
    """One CT slice before its pixels are read (PS3.3 C.7.6.2 Image Plane, C.8.2.1 CT Image).

    frame: index in a multi-frame file, None in a classic one; position: LPS mm of the centre of the first
    pixel; row, column: LPS unit vectors along increasing column index and increasing row index; spacing: mm
    along (x = columns, y = rows); size: pixels along (x, y); thickness: mm or None; slope, intercept: from
    stored values to HU; tilt: declared gantry tilt in degrees, 0 where none is declared; image_type: ImageType or
    FrameType; kernel: ConvolutionKernel as stored, empty where missing; stack, phase: the stack and the temporal
    position or cardiac phase it belongs to, empty where there is only one.
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
    image_type: tuple[str, ...] = ()
    kernel: str = ""
    stack: str = ""
    phase: str = ""

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """LPS unit vector perpendicular to the slice: row x column."""
        return np.cross(self.row, self.column)

    @property
    def is_localizer(self) -> bool:
        """True for a scout view."""
        return "LOCALIZER" in self.image_type

    @property
    def label(self) -> str:
        """The slice for a sentence: its file, or its frame counted from 1."""
        return self.path.name if self.frame is None else f"frame {self.frame + 1}"


def slice_headers(file: FileHeader) -> list[SliceHeader]:
    """The slices in one CT file, in the order they are stored.

    Raises InputError when a slice's place, size or rescale is missing or makes no sense, or when its pixels are
    not grey values in whole bytes.
    """
    with parsing(file.path):
        _check_pixel_description(file)
        if file.sop_class != CT_IMAGE:
            groups = enumerate(frame_groups(file))
            return [_slice(file, frame, [*own, file.dataset]) for frame, own in groups]
        if file.frames > 1:
            raise InputError(
                f"{file.path} is a classic CT image with {file.frames} frames, whose places are unknown; "
                "export the original series"
            )
        return [_slice(file, None, [file.dataset])]


def _check_pixel_description(file: FileHeader) -> None:
    """Refuses what is no plain grey image (PS3.3 C.7.6.3), and a matrix no scanner has, before memory is taken."""
    dataset, path = file.dataset, file.path
    if not file.is_image:
        raise InputError(f"{path} does not say how many pixels it has; export the original series")
    colour = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2")
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or not colour.startswith("MONOCHROME"):
        raise InputError(f"{path} is a colour picture ({_short(colour)}): this is not CT; leave it out")
    allocated, stored = (int(dataset.get(k) or 0) for k in ("BitsAllocated", "BitsStored"))
    high = dataset.get("HighBit")
    if allocated not in (8, 16, 32) or not 0 < stored <= allocated or high not in (None, stored - 1):
        raise InputError(
            f"{path} describes its pixels as {stored} of {allocated} bits up to bit {high}, which cannot be read; "
            "export it again as 16 bits"
        )
    if max(file.rows, file.columns) > _LARGEST_MATRIX:
        raise InputError(f"{path} claims {file.columns} x {file.rows} pixels, which no CT has; export it again")


def _slice(file: FileHeader, frame: int | None, groups: Sequence[Dataset]) -> SliceHeader:
    where = str(file.path) if frame is None else f"frame {frame + 1} of {file.path}"
    row_spacing, column_spacing = _numbers(groups, "PixelSpacing", 2, where)
    row, column = _axes(_numbers(groups, "ImageOrientationPatient", 6, where), where)
    position = _numbers(groups, "ImagePositionPatient", 3, where)
    if np.abs(position).max() > _FARTHEST_MM:
        raise InputError(
            f"{where} lies {_FARTHEST_MM / 1000:.0f} m away from its origin; export the original series"
        )
    thickness = _find(groups, "SliceThickness")
    slope, intercept = _rescale(groups, where)
    kernel = stored_texts(_find(groups, "ConvolutionKernel"))
    image_type = texts(_find(groups, "FrameType") or _find(groups, "ImageType"))
    technique = texts(_find(groups, "VolumeBasedCalculationTechnique"))
    return SliceHeader(
        path=file.path,
        frame=frame,
        position=position,
        row=row,
        column=column,
        spacing=(float(column_spacing), float(row_spacing)),
        size=(file.columns, file.rows),
        thickness=float(thickness) if thickness else None,
        slope=slope,
        intercept=intercept,
        tilt=_finite(_find(groups, "GantryDetectorTilt") or 0.0),
        image_type=(*image_type, *(t for t in technique if t in _PROJECTIONS)),
        kernel=_short(kernel[0]) if kernel else "",
        stack=str(_find(groups, "StackID") or ""),
        phase=_phase(groups),
    )


def _phase(groups: Sequence[Dataset]) -> str:
    """What tells two frames at one place apart: time (PS3.3 C.7.6.16.2.2.6) or the phase of the heart."""
    keywords = ("TemporalPositionIndex", "TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase")
    found = [str(value) for keyword in keywords if (value := _find(groups, keyword)) is not None]
    return "/".join(found)


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
            f"{where} holds values in '{_short(unit)}', not Hounsfield units; choose the CT series of the study"
        )
    if _finite(slope) == 0:
        raise InputError(f"{where} has a RescaleSlope of zero, so Hounsfield units cannot be computed")
    return _finite(slope), _finite(intercept)


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


def _find(groups: Sequence[Dataset], keyword: str) -> Any:
    """The first value of an attribute that is present and not empty, else None."""
    return next((g[keyword].value for g in groups if keyword in g and g[keyword].value not in (None, "")), None)


def _finite(value: Any) -> float:
    number = float(value)
    if not np.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _short(code: str) -> str:
    """A code string from a file for a sentence: at most sixteen characters (PS3.5 6.2), none but those of codes."""
    return "".join(c for c in code[:16] if c.isalnum() or c in " _+-")
