"""Damages DICOM files in ways a seed decides: bytes, lengths, cuts, and values that make no sense."""

from __future__ import annotations

import io
import subprocess
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from .dicom_files import AXIAL, ct_values, straight_positions, write_enhanced, write_series

_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_ODD_VALUES: dict[str, tuple[object, ...]] = {
    "Rows": (0, 1, 65535, 41),
    "Columns": (0, 1, 65535, 47),
    "NumberOfFrames": (0, 2, 10**6, 2**31 - 1),
    "BitsAllocated": (0, 1, 8, 12, 32, 64, 65535),
    "BitsStored": (0, 1, 17, 65535),
    "HighBit": (0, 14, 65535),
    "PixelRepresentation": (1, 2, 65535),
    "SamplesPerPixel": (0, 3, 65535),
    "PhotometricInterpretation": ("MONOCHROME1", "RGB", "PALETTE COLOR", "YBR_FULL_422", ""),
    "ImagePositionPatient": ([0, 0, 1e30], ["1e308"] * 3, [1], [], [1, 2, 3, 4]),
    "ImageOrientationPatient": ([0] * 6, [1, 0, 0, 1, 0, 0], [1] * 6, [1e30] * 6, []),
    "PixelSpacing": ([0, 0], [-1, 1], [1e-30, 1e-30], [1e30, 1e30], [1]),
    "SliceThickness": ("1e300", -1, ""),
    "RescaleSlope": ("1e300", 0, -1, ""),
    "RescaleIntercept": ("1e300", "-1e300", ""),
    "RescaleType": ("Z_EFF", "HU"),
    "PixelPaddingValue": (0, 65535),
    "ImageType": ([], ["A"], ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    "SeriesNumber": (-(2**31), 2**31 - 1),
    "GantryDetectorTilt": ("1e300", 90, -30),
}
Mutation = Callable[[bytearray, np.random.Generator], bytes]


def healthy_files(folder: Path) -> list[Path]:
    """One file of every kind the engine reads: encodings, compressions, multi-frame, an archive."""
    hu, positions = ct_values((3, 40, 48)), straight_positions(3, 2.0, AXIAL)
    smooth = np.cumsum(np.sign(hu), axis=2).astype(np.int16) * 5
    files = []
    syntaxes = (None, ImplicitVRLittleEndian, RLELossless, DeflatedExplicitVRLittleEndian)
    for number, syntax in enumerate((*syntaxes, JPEGLSLossless, JPEG2000Lossless)):
        (path,) = write_series(folder / str(number), smooth[:1], positions[:1])
        dataset = pydicom.dcmread(path)
        if syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
            dataset.compress(syntax)
        elif syntax is not None:
            dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path)
        files.append(path)
    jpeg = folder / "jpeg.dcm"
    subprocess.run(["dcmcjpeg", "+e1", files[0], jpeg], check=True)
    write_enhanced(folder / "enhanced.dcm", hu, positions, order=[2, 0, 1])
    archive = folder / "study.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for number, path in enumerate(write_series(folder / "series", smooth, positions)):
            out.write(path, f"{number}.dcm")
    return [*files, jpeg, folder / "enhanced.dcm", archive]


def mutated(content: bytes, seed: int) -> bytes:
    """The file with one to four mutations; the same seed makes the same file."""
    rng = np.random.default_rng(seed)
    is_odd = bool(rng.random() < 0.4)
    if is_odd:
        content = _odd_value(content, rng)
    for _ in range(int(rng.integers(0 if is_odd else 1, 3))):
        kind = _KINDS[int(rng.integers(len(_KINDS)))]
        content = kind(bytearray(content), rng)
    return content


def _odd_value(content: bytes, rng: np.random.Generator) -> bytes:
    """A tag with a value of the right kind that no scanner writes."""
    keyword = list(_ODD_VALUES)[int(rng.integers(len(_ODD_VALUES)))]
    values = _ODD_VALUES[keyword]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(content))
            setattr(dataset, keyword, values[int(rng.integers(len(values)))])
            stream = io.BytesIO()
            dataset.save_as(stream)
        return stream.getvalue()
    except Exception:  # an archive, or a value pydicom itself refuses to write
        return content


def _place(content: bytearray, rng: np.random.Generator) -> int:
    """Somewhere in the file, more often in its header."""
    end = len(content) if rng.random() < 0.4 else min(len(content), 1500)
    return int(rng.integers(max(end, 1)))


def _flip(content: bytearray, rng: np.random.Generator) -> bytes:
    for _ in range(int(rng.integers(1, 6))):
        if content:
            content[_place(content, rng)] = int(rng.integers(256))
    return bytes(content)


def _extreme(content: bytearray, rng: np.random.Generator) -> bytes:
    at, width = _place(content, rng), int(rng.choice([1, 2, 4]))
    value = int(rng.choice(_EXTREMES)) & ((1 << 8 * width) - 1)
    content[at : at + width] = value.to_bytes(width, "little")
    return bytes(content)


def _cut(content: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(content[: _place(content, rng)])


def _drop(content: bytearray, rng: np.random.Generator) -> bytes:
    at = _place(content, rng)
    return bytes(content[:at] + content[at + int(rng.integers(1, 64)) :])


def _repeat(content: bytearray, rng: np.random.Generator) -> bytes:
    at = _place(content, rng)
    piece = content[at : at + int(rng.integers(1, 200))]
    return bytes(content[:at] + piece * int(rng.integers(1, 8)) + content[at:])


def _noise(content: bytearray, rng: np.random.Generator) -> bytes:
    at = _place(content, rng)
    return bytes(content[:at] + rng.bytes(int(rng.integers(1, 64))) + content[at:])


_KINDS: tuple[Mutation, ...] = (_flip, _flip, _extreme, _extreme, _cut, _drop, _repeat, _noise)
