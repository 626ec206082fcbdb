"""Compressed series come back voxel for voxel, against the decoder of DCMTK or the values that were encoded."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from klip_engine.io import dicom_deflated, read_ct
from klip_engine.io.codestream import check_codestream

from .dicom_files import AXIAL, add_pixels, ct_values, straight_positions, write_enhanced, write_series
from .test_bad_input import refusal

HU = np.cumsum(np.sign(ct_values((3, 64, 80))), axis=2).astype(np.int16) * 7
POSITIONS = straight_positions(len(HU), 2.0, AXIAL)


def dcmtk(*command: object) -> None:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"needs {command[0]} of DCMTK")
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


def stored_as(signed: bool, bits: int):  # type: ignore[no-untyped-def]
    """An edit: the stored values signed or not, in so many bits."""

    def edit(dataset: Dataset, k: int) -> None:
        add_pixels(dataset, HU[k] if signed else (HU[k] + 1024).astype(np.uint16))
        dataset.RescaleIntercept = 0 if signed else -1024
        dataset.BitsStored, dataset.HighBit = bits, bits - 1

    return edit


def series(folder: Path, signed: bool = False, bits: int = 16) -> list[Path]:
    return write_series(folder, HU, POSITIONS, edit=stored_as(signed, bits))


@pytest.mark.parametrize(("signed", "bits"), [(False, 16), (True, 16), (False, 12), (True, 12)])
@pytest.mark.parametrize("encode", [("dcmcjpeg", "+e1"), ("dcmcjpeg", "+el"), ("dcmcjpls", "+el")])
def test_lossless_files_of_dcmtk(tmp_path: Path, encode: tuple[str, str], signed: bool, bits: int) -> None:
    (tmp_path / "packed").mkdir()
    for path in series(tmp_path / "plain", signed, bits):
        dcmtk(*encode, path, tmp_path / "packed" / path.name)
    loaded = read_ct(tmp_path / "packed")
    assert np.array_equal(loaded.volume.hu, HU)
    assert loaded.notices == ()


@pytest.mark.parametrize(
    ("encode", "decode", "bits", "tolerance"),
    [
        (("dcmcjpeg", "+eb"), "dcmdjpeg", 8, 1),  # inverse cosine transforms may round differently
        (("dcmcjpeg", "+ee"), "dcmdjpeg", 12, 1),
        (("dcmcjpls", "+en", "+md", "3"), "dcmdjpls", 12, 0),
    ],
)
def test_lossy_files_of_dcmtk(
    tmp_path: Path, encode: tuple[str, ...], decode: str, bits: int, tolerance: int
) -> None:
    packed, unpacked = tmp_path / "packed", tmp_path / "unpacked"
    packed.mkdir()
    unpacked.mkdir()
    for k, path in enumerate(series(tmp_path / "plain", bits=12)):
        dataset = pydicom.dcmread(path)
        if bits == 8:  # twelve bits of CT do not fit: 8 HU a step
            add_pixels(dataset, ((HU[k] + 1024) // 8).astype(np.uint16))
            dataset.PixelData = ((HU[k] + 1024) // 8).astype(np.uint8).tobytes()
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
            dataset.RescaleSlope, dataset.RescaleIntercept = 8, -1024
            dataset.save_as(path)
        dcmtk(*encode, path, packed / path.name)
        dcmtk(decode, packed / path.name, unpacked / path.name)
    loaded = read_ct(packed)
    slope = float(pydicom.dcmread(next(packed.iterdir())).RescaleSlope)
    assert np.abs(loaded.volume.hu - read_ct(unpacked).volume.hu).max() <= tolerance * slope
    assert np.abs(loaded.volume.hu - HU).mean() < 40
    assert any("compressed with loss" in notice for notice in loaded.notices)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_files_of_the_encoders_of_pydicom(tmp_path: Path, syntax: str, signed: bool) -> None:
    for path in series(tmp_path, signed):
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax)
        dataset.save_as(path)
    assert np.array_equal(read_ct(tmp_path).volume.hu, HU)


def test_near_lossless_stays_within_its_bound(tmp_path: Path) -> None:
    for path in series(tmp_path):
        dataset = pydicom.dcmread(path)
        dataset.compress(JPEGLSNearLossless, jls_error=2)
        dataset.save_as(path)
    error = np.abs(read_ct(tmp_path).volume.hu - HU).max()
    assert 0 < error <= 2


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_encodings_of_the_data_set(tmp_path: Path, syntax: str) -> None:
    for path in series(tmp_path):
        if syntax == ExplicitVRBigEndian:
            dcmtk("dcmconv", "+tb", path, path)
        else:
            dataset = pydicom.dcmread(path)
            dataset.file_meta.TransferSyntaxUID = syntax
            dataset.save_as(path)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(read_ct(tmp_path).volume.hu, HU)


@pytest.mark.parametrize("encode", [("dcmcjpeg", "+e1"), ("dcmcjpls", "+el")])
def test_compressed_multi_frame(tmp_path: Path, encode: tuple[str, str]) -> None:
    write_enhanced(tmp_path / "plain.dcm", HU, POSITIONS, order=[2, 0, 1])
    dcmtk(*encode, tmp_path / "plain.dcm", tmp_path / "packed.dcm")
    assert np.array_equal(read_ct(tmp_path / "packed.dcm").volume.hu, HU)


def test_deflated_file_that_holds_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path, *_) = series(tmp_path)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.PixelData = bytes(2**21)
    dataset.save_as(path)
    assert path.stat().st_size < 2**14
    monkeypatch.setattr(dicom_deflated, "INFLATED_LIMIT", 2**20)
    assert "is deflated and holds more than 1 MiB" in refusal(path)


def test_codestream_of_another_size_than_its_header_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (path, *_) = series(tmp_path)
    dataset = pydicom.dcmread(path)
    dataset.compress(JPEG2000Lossless)
    start = dataset.PixelData.index(b"\xff\x4f\xff\x51") + 8
    grown = bytearray(dataset.PixelData)
    grown[start : start + 8] = (60_000).to_bytes(4) * 2
    with pytest.raises(ValueError, match=r"holds \(60000, 60000, 1\)"):
        check_codestream(bytes(grown[8:]), 64, 80, 16)
    dataset.PixelData = bytes(grown)
    dataset.save_as(path)
    assert "cannot be decoded" in refusal(path)
