"""CT studies to send to the service: small slices with correct headers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT = "Doe^Jane^Secret"


def ct_study(seed: str, slices: int = 10, size: int = 16, hu: np.ndarray | None = None) -> list[Dataset]:
    """One axial series; UIDs follow from the seed. hu: [slices, y, x] instead of noise."""
    study, series = generate_uid(entropy_srcs=[seed, "study"]), generate_uid(entropy_srcs=[seed, "series"])
    if hu is None:
        hu = np.random.default_rng(len(seed)).integers(-1000, 500, (slices, size, size))
    return [_slice(study, series, seed, k, plane) for k, plane in enumerate(hu.astype(np.int16))]


def _slice(study: str, series: str, seed: str, k: int, hu: np.ndarray) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=[seed, str(k)])
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=[seed, "frame"])
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = PATIENT, "MRN-123456", "19700101", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260102", "101500", "S1", "A1"
    ds.ReferringPhysicianName, ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = "", "", 2, k + 1
    ds.PositionReferenceIndicator = ds.KVP = ds.AcquisitionNumber = None
    ds.Modality, ds.ImageType, ds.SeriesDescription = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "Thorax"
    ds.BodyPartExamined, ds.PatientPosition, ds.SliceThickness = "CHEST", "HFS", 2.5
    ds.Rows, ds.Columns = hu.shape
    ds.PixelSpacing, ds.ImageOrientationPatient = [4.0, 4.0], [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [-100.0, -100.0, -40.0 + 2.5 * k]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "HU"
    ds.PixelData = hu.tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = (
        ds.SOPClassUID,
        ds.SOPInstanceUID,
    )
    return ds


def as_bytes(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def write_study(folder: Path, study: list[Dataset]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{k:04}.dcm" for k in range(len(study))]
    for file, dataset in zip(files, study, strict=True):
        file.write_bytes(as_bytes(dataset))
    return files
