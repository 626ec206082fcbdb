"""JPEG frames (lossless, process 14, and lossy with 8 or 12 bits) by the GDCM inside SimpleITK.

GDCM's own Python package ends the program on damaged frames; SimpleITK turns the same damage into an exception and
is there in every installation. It reads files only, so a frame is wrapped into one of its own.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, SecondaryCaptureImageStorage, generate_uid


@dataclass(frozen=True)
class PixelFormat:
    """What the header says of the stored values (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    is_signed: bool


def decode_jpeg(frame: bytes, syntax: UID, pixels: PixelFormat) -> npt.NDArray[np.integer]:
    """Stored values [y, x] of one frame. Raises RuntimeError where it is damaged."""
    with tempfile.TemporaryDirectory(prefix="klip-") as folder:
        path = Path(folder, "frame.dcm")
        _wrapped(frame, syntax, pixels).save_as(path, enforce_file_format=True)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.SetImageIO("GDCMImageIO")
        stored: npt.NDArray[np.integer] = np.squeeze(sitk.GetArrayFromImage(reader.Execute()))
    return stored


def _wrapped(frame: bytes, syntax: UID, pixels: PixelFormat) -> Dataset:
    """The smallest image GDCM accepts."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns = pixels.rows, pixels.columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored = pixels.bits_allocated, pixels.bits_stored
    dataset.HighBit, dataset.PixelRepresentation = pixels.bits_stored - 1, int(pixels.is_signed)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    return dataset
