"""Writes small DICOM CT for the tests, straight from the definitions in PS3.3, with pydicom alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    XRayRadiationDoseSRStorage,
    generate_uid,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
Edit = Callable[[Dataset, int], None]


def oblique(degrees: float = 20.0) -> tuple[float, ...]:
    """Cosines of a plane turned about x and then about z."""
    a, b = np.radians(degrees), np.radians(degrees / 2)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    turn = about_z @ about_x
    return (*turn[:, 0], *turn[:, 1])


def normal_of(orientation: Sequence[float]) -> np.ndarray:
    return np.cross(orientation[:3], orientation[3:])


def ct_values(shape: tuple[int, int, int] = (6, 40, 48), seed: int = 0) -> np.ndarray:
    """HU [z, y, x] int16 that differ in every voxel's neighbourhood and look like CT."""
    values = np.random.default_rng(seed).integers(-1000, 1200, shape)
    return values.astype(np.int16)


def straight_positions(
    count: int, gap: float, orientation: Sequence[float], origin: Sequence[float] = (-101.25, -87.5, 312.4)
) -> np.ndarray:
    """ImagePositionPatient of slices that follow their normal, [count, 3] LPS mm."""
    return np.asarray(origin) + np.outer(np.arange(count) * gap, normal_of(orientation))


def blank(sop_class: str, modality: str = "CT", series: str | None = None) -> FileDataset:
    """The modules every object of a study has, with patient data that must never come out again."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = series or generate_uid()
    dataset.SeriesNumber = 3
    dataset.Modality = modality
    dataset.PatientName = "Secretname^Patient"
    dataset.PatientID = "SECRET-ID-42"
    dataset.PatientBirthDate = "19010203"
    return dataset


def add_pixels(dataset: Dataset, stored: np.ndarray) -> None:
    """Image Pixel module for stored values [y, x] or [frame, y, x], int16 or uint16."""
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.astype("<" + stored.dtype.str[1:]).tobytes()


def write_series(
    folder: Path,
    hu: np.ndarray,
    positions: np.ndarray,
    *,
    orientation: Sequence[float] = AXIAL,
    pixel_mm: tuple[float, float] = (0.75, 0.75),
    intercept: float = -1024.0,
    series: str | None = None,
    names: Sequence[str] | None = None,
    edit: Edit | None = None,
) -> list[Path]:
    """One classic CT file per slice of hu [z, y, x]; pixel_mm is PixelSpacing (between rows, between columns).

    names: file names; edit: changes the data set of slice k before it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series = series or generate_uid()
    paths = []
    for k, (plane, position) in enumerate(zip(hu, positions, strict=True)):
        dataset = blank(CTImageStorage, series=series)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient = [f"{v:.9g}" for v in position]
        dataset.ImageOrientationPatient = [f"{v:.9g}" for v in orientation]
        dataset.PixelSpacing = list(pixel_mm)
        dataset.SliceThickness = 2.5
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, intercept, "HU"
        add_pixels(dataset, np.rint(plane - intercept).astype(np.uint16))
        if edit is not None:
            edit(dataset, k)
        paths.append(folder / (names[k] if names else f"{k:04d}.dcm"))
        dataset.save_as(paths[-1])
    return paths


def write_dose_report(path: Path) -> None:
    """A structured report: DICOM without pixels."""
    blank(XRayRadiationDoseSRStorage, modality="SR").save_as(path)


def write_directory_index(path: Path) -> None:
    """A DICOMDIR (PS3.3 F.3): file meta information and directory records, no image."""
    dataset = blank(MediaStorageDirectoryStorage)
    dataset.clear()
    dataset.FileSetID = "DISC"
    dataset.save_as(path)


def write_enhanced(path: Path, hu: np.ndarray, positions: np.ndarray, order: Sequence[int]) -> None:
    """An Enhanced CT Image (PS3.3 A.38): frames in any order, intercept per frame, the rest shared."""
    dataset = blank(EnhancedCTImageStorage)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.NumberOfFrames = len(hu)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.6], 2.0
    orientation.ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence = DicomSequence([measures])
    shared.PlaneOrientationSequence = DicomSequence([orientation])
    dataset.SharedFunctionalGroupsSequence = DicomSequence([shared])
    frames, stored = [], []
    for k in order:
        intercept = -1024 - 10 * k
        frame, place, transformation = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [float(v) for v in positions[k]]
        transformation.RescaleIntercept = intercept
        transformation.RescaleSlope, transformation.RescaleType = 1, "HU"
        frame.PlanePositionSequence = DicomSequence([place])
        frame.PixelValueTransformationSequence = DicomSequence([transformation])
        frames.append(frame)
        stored.append(hu[k].astype(np.int32) - intercept)
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    add_pixels(dataset, np.stack(stored).astype(np.uint16))
    dataset.save_as(path)
