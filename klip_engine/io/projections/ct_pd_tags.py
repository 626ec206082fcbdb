"""The private tags of DICOM-CT-PD, decoded whatever the transfer syntax.

Names and meanings: Chen et al., Med. Phys. 42(12), 2015, 6964, and Moen et al., Med. Phys. 48(2), 2021, table IV.
In implicit VR nothing in the file says what a private element is, so it arrives as bytes and is decoded here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from klip_engine.errors import InputError

DETECTOR_ROWS = (0x70291010, "NumberofDetectorRows")
DETECTOR_COLUMNS = (0x70291011, "NumberofDetectorColumns")
TRANSVERSE_SPACING = (0x70291002, "DetectorElementTransverseSpacing")
AXIAL_SPACING = (0x70291006, "DetectorElementAxialSpacing")
DETECTOR_SHAPE = (0x7029100B, "DetectorShape")
FOCAL_ANGLE = (0x70311001, "DetectorFocalCenterAngularPosition")
FOCAL_Z = (0x70311002, "DetectorFocalCenterAxialPosition")
FOCAL_RADIUS = (0x70311003, "DetectorFocalCenterRadialDistance")
FOCAL_TO_DETECTOR = (0x70311031, "ConstantRadialDistance")
CENTRAL_ELEMENT = (0x70311033, "DetectorCentralElement")
SHIFT_ANGLE = (0x7033100B, "SourceAngularPositionShift")
SHIFT_Z = (0x7033100C, "SourceAxialPositionShift")
SHIFT_RADIUS = (0x7033100D, "SourceRadialDistanceShift")
FFS_MODE = (0x7033100E, "FlyingFocalSpotMode")
VIEWS_PER_TURN = (0x70331013, "NumberofSourceAngularSteps")
SPECTRA = (0x70331061, "NumberofSpectra")
PHOTONS = (0x70331065, "PhotonStatistics")
DATA_TYPE = (0x70371009, "TypeofProjectionData")
GEOMETRY_TYPE = (0x7037100A, "TypeofProjectionGeometry")
LOG_FLAG = (0x70391009, "LogFlag")
WATER = (0x70411001, "WaterAttenuationCoefficient")

Tag = tuple[int, str]


def floats(dataset: Dataset, tag: Tag, path: Path, count: int | None = 1) -> npt.NDArray[np.float64]:
    """FL values, `count` of them (None: as many as there are). Raises InputError when missing or not finite."""
    values = _numbers(dataset, tag, "<f4", path)
    if (count is not None and len(values) != count) or not np.isfinite(values).all():
        raise InputError(f"{_called(tag)} of {path} must be {count or 'any'} finite numbers; the file is damaged")
    return values


def whole(dataset: Dataset, tag: Tag, path: Path) -> int:
    """One US value. Raises InputError when missing."""
    values = _numbers(dataset, tag, "<u2", path)
    if len(values) != 1:
        raise InputError(f"{_called(tag)} of {path} must be one number; the file is damaged")
    return int(values[0])


def text(dataset: Dataset, tag: Tag) -> str:
    """CS or DS as upper-case text, empty where missing."""
    value = dataset[tag[0]].value if tag[0] in dataset else ""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return str(value or "").strip(" \0").upper()


def decimal_or_none(dataset: Dataset, tag: Tag, path: Path) -> float | None:
    """A DS value, None where missing. Raises InputError for what is no number."""
    said = text(dataset, tag)
    try:
        return float(said) if said else None
    except ValueError as error:
        raise InputError(f"{_called(tag)} of {path} is no number; the file is damaged") from error


def _numbers(dataset: Dataset, tag: Tag, stored_as: str, path: Path) -> npt.NDArray[np.float64]:
    if tag[0] not in dataset:
        raise InputError(f"{path} lacks {_called(tag)}: without it the rays are not known; export the scan again")
    value: Any = dataset[tag[0]].value
    try:
        if isinstance(value, bytes):
            return np.frombuffer(value, np.dtype(stored_as)).astype(np.float64)
        return np.atleast_1d(np.asarray(value, np.float64))
    except (ValueError, TypeError) as error:
        raise InputError(f"{_called(tag)} of {path} cannot be decoded; the file is damaged") from error


def _called(tag: Tag) -> str:
    return f"{tag[1]} ({tag[0] >> 16:04X},{tag[0] & 0xFFFF:04X})"
