"""Hounsfield units of one DICOM slice: transfer syntax, padding and rescale (PS3.3 C.7.5.1.1.2, C.11.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from klip_engine.errors import InputError
from klip_engine.io.bounded_file import BoundedFile
from klip_engine.io.codestream import check_codestream
from klip_engine.io.dicom_deflated import check_inflated_size
from klip_engine.io.dicom_headers import FileHeader, damaged, parsing, quiet
from klip_engine.io.dicom_slices import SliceHeader
from klip_engine.io.hounsfield import LOWEST_HU
from klip_engine.io.jpeg import PixelFormat, decode_jpeg
from klip_engine.volume import FloatArray
from klip_engine.words import install_extra

_JPEG = {JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1}
_PLUGINS = {
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
}
"""The plugins of pydicom that refuse damaged frames; GDCM's, which comes first, ends the program on some."""
_LOSSY = {
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    JPEG2000,
    HTJ2K,
}
"""Transfer syntaxes that may lose something."""


class SliceReader:
    """Reads slices one at a time; keeps the last file open because a multi-frame file holds many of them."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._dataset = Dataset()

    def __call__(self, header: SliceHeader) -> FloatArray:
        """HU [y, x] float32 of one slice; pixel padding becomes -1024.

        Raises InputError for a transfer syntax without decoder and for damaged pixels.
        """
        if header.path != self._path:
            self._dataset, self._path = _read(header.path), header.path
        stored = _decode(self._dataset, header)
        hu = stored.astype(np.float32)
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused with the volume
            hu *= np.float32(header.slope)
            hu += np.float32(header.intercept)
        with parsing(header.path):
            padding = _padding(self._dataset)
        if padding is not None:
            hu[(stored >= padding[0]) & (stored <= padding[1])] = LOWEST_HU
        return hu


def lossy_notice(files: Sequence[FileHeader]) -> tuple[str, ...]:
    """A sentence where images were compressed with loss at any time (PS3.3 C.7.6.1.1.5)."""
    if not any(
        file.transfer_syntax in _LOSSY or file.dataset.get("LossyImageCompression") == "01" for file in files
    ):
        return ()
    return (
        "The images were compressed with loss: artefacts of the compression may be marked and fine findings lost.",
    )


def _read(path: Path) -> Dataset:
    with parsing(path):
        check_inflated_size(path)
        with BoundedFile(path) as stream:
            return pydicom.dcmread(stream, force=True)


def _decode(dataset: Dataset, header: SliceHeader) -> npt.NDArray[np.integer]:
    """Stored values [y, x]."""
    if "PixelData" not in dataset:
        raise InputError(f"{header.path} has no pixel data, only a header; export it again with its images")
    with parsing(header.path):
        syntax = _transfer_syntax(dataset)
    decoder = None if syntax in _JPEG else _decoder(syntax, header.path)
    try:
        with quiet():
            frame = _checked_frame(dataset, header) if syntax.is_encapsulated else b""
            if decoder is None:
                stored = decode_jpeg(frame, syntax, _pixel_format(dataset))
            else:
                plugin = _PLUGINS.get(syntax, "")
                stored, _ = decoder.as_array(dataset, index=header.frame or 0, raw=True, decoding_plugin=plugin)
    except MemoryError:
        raise
    except Exception as error:  # each decoding plugin has exceptions of its own
        raise InputError(
            f"the pixels of {header.path} cannot be decoded: the file is damaged; export it again"
        ) from error
    if stored.shape != header.size[::-1]:
        raise damaged(header.path)
    return stored


def _checked_frame(dataset: Dataset, header: SliceHeader) -> bytes:
    """The encoded frame, whose codestream agrees with the header."""
    count = int(dataset.get("NumberOfFrames") or 1)
    index, offsets = header.frame or 0, _offsets(dataset)
    frame = get_frame(dataset.PixelData, index, number_of_frames=count, extended_offsets=offsets)
    check_codestream(frame, header.size[1], header.size[0], int(dataset.BitsAllocated))
    return frame


def _pixel_format(dataset: Dataset) -> PixelFormat:
    bits = int(dataset.BitsAllocated), int(dataset.BitsStored)
    return PixelFormat(int(dataset.Rows), int(dataset.Columns), *bits, int(dataset.PixelRepresentation) == 1)


def _offsets(dataset: Dataset) -> tuple[bytes, bytes] | None:
    """The extended offset table of a multi-frame image (PS3.3 C.7.6.3.1.8), where it has one."""
    if "ExtendedOffsetTable" not in dataset:
        return None
    return dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths


def _decoder(syntax: UID, path: Path) -> Decoder:
    try:
        with quiet():
            decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise InputError(
            f"{path} uses the transfer syntax '{_printable(syntax)}', which is not supported; "
            "export it uncompressed (Explicit VR Little Endian)"
        ) from error
    if not decoder.is_available or (syntax in _PLUGINS and _PLUGINS[syntax] not in decoder.available_plugins):
        raise InputError(
            f"{path} uses the transfer syntax '{_printable(syntax)}', for which no decoder is installed: "
            f"{install_extra('compressed-dicom')}, or export it uncompressed"
        )
    return decoder


def _printable(syntax: UID) -> str:
    """The name of a transfer syntax, or as much of its UID as can be one."""
    return "".join(c for c in syntax.name[:80] if c.isascii() and c.isprintable())


def _transfer_syntax(dataset: Dataset) -> UID:
    """As the file states it; a data set without file meta information is uncompressed little endian."""
    meta = dataset.file_meta
    if "TransferSyntaxUID" not in meta:
        is_implicit = dataset.original_encoding[0] is not False
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
    return UID(meta.TransferSyntaxUID)


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """Lowest and highest stored value that mean 'nothing was measured here'."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [_as_stored(int(v), dataset) for v in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _as_stored(value: int, dataset: Dataset) -> int:
    """The padding value with the bits and sign of the pixels: some writers give -2000 as 63536, or the reverse."""
    bits = int(dataset.BitsStored)
    value &= (1 << bits) - 1
    is_negative = int(dataset.PixelRepresentation) == 1 and value >= 1 << (bits - 1)
    return value - (1 << bits) if is_negative else value
