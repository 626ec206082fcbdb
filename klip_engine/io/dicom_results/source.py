"""The DICOM series a result refers to: one image per slice of the result, headers only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from klip_engine.errors import InputError, UsageError
from klip_engine.io.dicom_headers import damaged
from klip_engine.io.loaded import Loaded, LoadedCT
from klip_engine.volume import CTVolume

_SAME_PLACE_MM = 0.01


@dataclass(frozen=True)
class SourceImage:
    """One slice of the source: its SOP class and instance, and in a multi-frame object its frame (from 1).

    is_same_place: whether the slice of the result lies exactly where this one does; not so where a tilted or
    unevenly spaced series was resampled.
    """

    sop_class: str
    sop_instance: str
    frame: int | None
    is_same_place: bool


@dataclass(frozen=True)
class SourceSeries:
    """header: the data set of the first slice without pixels (patient, study, equipment); images: one per slice of
    the volume, in its order; volume: the HU that were read."""

    header: Dataset
    images: tuple[SourceImage, ...]
    volume: CTVolume

    @property
    def instances(self) -> tuple[tuple[str, str], ...]:
        """SOP class and instance UID of every file, each once, in the order of the slices."""
        return tuple(dict.fromkeys((image.sop_class, image.sop_instance) for image in self.images))

    @property
    def study_uid(self) -> str:
        """StudyInstanceUID."""
        return str(self.header.StudyInstanceUID)

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID."""
        return str(self.header.SeriesInstanceUID)


def read_source(loaded: Loaded) -> SourceSeries:
    """The series behind a CT that was read from DICOM.

    Raises UsageError where it was not, InputError where files are gone or lack the UIDs a reference needs.
    """
    if not isinstance(loaded, LoadedCT) or not loaded.dicom_files:
        raise UsageError(
            "DICOM results refer to the DICOM series they were made from, and this input is not DICOM; "
            "give the series, or leave DICOM results out"
        )
    count = loaded.volume.geometry.size[2]
    files = loaded.dicom_files
    if len(files) == 1:
        files = files * count
    headers = {path: _header(path) for path in dict.fromkeys(files)}
    frames = loaded.dicom_frames or (None,) * count
    images = tuple(
        SourceImage(
            str(headers[path].SOPClassUID),
            str(headers[path].SOPInstanceUID),
            None if frame is None else frame + 1,
            _is_same_place(headers[path], frame, loaded.volume, k),
        )
        for k, (path, frame) in enumerate(zip(files, frames, strict=True))
    )
    return SourceSeries(headers[files[0]], images, loaded.volume)


def _header(path: Path) -> Dataset:
    try:
        header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    except FileNotFoundError as error:
        raise InputError(f"{path} is no longer there; DICOM results need the series they were made from") from error
    except (OSError, ValueError, KeyError, EOFError, AttributeError) as error:
        raise damaged(path) from error
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        if not header.get(keyword):
            raise InputError(f"{path} has no {keyword}, so a result cannot refer to it; export the original series")
    return header


def _is_same_place(header: Dataset, frame: int | None, volume: CTVolume, k: int) -> bool:
    """Whether slice k of the volume starts where the source image does and has its size."""
    position = _position(header, frame)
    if position is None or (header.Columns, header.Rows) != volume.geometry.size[:2]:
        return False
    offset = np.asarray(position, dtype=np.float64) - volume.geometry.to_lps((0, 0, k))
    return bool(np.abs(offset).max() < _SAME_PLACE_MM)


def _position(header: Dataset, frame: int | None) -> list[float] | None:
    """ImagePositionPatient of an image or a frame (PS3.3 C.7.6.2.1.1, C.7.6.16.2.3)."""
    if frame is None:
        return header.get("ImagePositionPatient")
    groups = [header.PerFrameFunctionalGroupsSequence[frame], *header.get("SharedFunctionalGroupsSequence", [])]
    for group in groups:
        if group.get("PlanePositionSequence"):
            position: list[float] | None = group.PlanePositionSequence[0].get("ImagePositionPatient")
            return position
    return None
