"""Stands in for `klip-engine detect --dicom`: quick, with the same contract, and honest about its input.

Usage: stand_in_engine.py INPUT OUT [SECONDS]. OUT/dicom holds small objects of the same SOP classes on the input's
study, whose UIDs follow from the images, and OUT is complete or absent. A line for each run that got so far as to
read its input is added to OUT/../runs.txt.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CLASSES = {
    "seg": ("1.2.840.10008.5.1.4.1.1.66.4", "SEG"),
    "sr": ("1.2.840.10008.5.1.4.1.1.88.34", "SR"),
    "pm": ("1.2.840.10008.5.1.4.1.1.30", "OT"),
    "sc": ("1.2.840.10008.5.1.4.1.1.7", "OT"),
    "labelmap": ("1.2.840.10008.5.1.4.1.1.66.7", "SEG"),
}


def main(source: Path, out: Path, seconds: float) -> None:
    images = [pydicom.dcmread(file) for file in sorted(source.glob("*.dcm"))]
    digest = hashlib.sha256()
    for image in sorted(images, key=lambda image: image.SOPInstanceUID):
        digest.update(image.SOPInstanceUID.encode() + image.PixelData)
    with (out.parent / "runs.txt").open("a") as runs:
        print(digest.hexdigest(), file=runs)
    time.sleep(seconds)
    folder = Path(tempfile.mkdtemp(dir=out.parent))
    (folder / "dicom").mkdir()
    (folder / "findings.json").write_text(json.dumps({"digest": digest.hexdigest()}))
    for kind in CLASSES:
        written = _object(kind, images[0], digest.hexdigest())
        pydicom.dcmwrite(folder / "dicom" / f"{kind}.dcm", written, enforce_file_format=True)
    folder.rename(out)


def _object(kind: str, image: Dataset, digest: str) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.Modality = CLASSES[kind]
    ds.SOPInstanceUID, ds.SeriesInstanceUID = (_uid(digest, kind, level) for level in ("instance", "series"))
    for keyword in ("StudyInstanceUID", "PatientName", "PatientID", "StudyDate", "StudyTime"):
        ds[keyword] = image[keyword]
    ds.SeriesDescription = digest
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = (
        ds.SOPClassUID,
        ds.SOPInstanceUID,
    )
    return ds


def _uid(*parts: str) -> str:
    return f"2.25.{int.from_bytes(hashlib.sha256('/'.join(parts).encode()).digest()[:16], 'big')}"


if __name__ == "__main__":
    os.umask(0o077)
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
