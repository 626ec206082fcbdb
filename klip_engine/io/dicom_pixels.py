"""Hounsfield units of one DICOM slice: transfer syntax, padding and rescale (PS3.3 C.7.5.1.1.2, C.11.1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from klip_engine.errors import InputError
from klip_engine.io.dicom_headers import SliceHeader, damaged
from klip_engine.io.hounsfield import LOWEST_HU
from klip_engine.volume import FloatArray


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
        hu *= np.float32(header.slope)
        hu += np.float32(header.intercept)
        padding = _padding(self._dataset)
        if padding is not None:
            hu[(stored >= padding[0]) & (stored <= padding[1])] = LOWEST_HU
        return hu


def _read(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path, force=True)
    except (OSError, ValueError, KeyError, EOFError, AttributeError) as error:
        raise damaged(path) from error


def _decode(dataset: Dataset, header: SliceHeader) -> npt.NDArray[np.integer]:
    """Stored values [y, x]."""
    decoder = _decoder(dataset, header.path)
    try:
        stored, _ = decoder.as_array(dataset, index=header.frame or 0, raw=True)
    except Exception as error:  # each decoding plugin has exceptions of its own
        raise InputError(
            f"the pixels of {header.path} cannot be decoded: the file is damaged; export it again"
        ) from error
    if stored.shape != header.size[::-1]:
        raise damaged(header.path)
    return stored


def _decoder(dataset: Dataset, path: Path) -> Decoder:
    syntax = _transfer_syntax(dataset)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise InputError(
            f"{path} uses the transfer syntax '{syntax.name}', which is not supported; "
            "export it uncompressed (Explicit VR Little Endian)"
        ) from error
    if not decoder.is_available:
        raise InputError(
            f"{path} uses the transfer syntax '{syntax.name}', for which no decoder is installed: "
            "pip install klip-engine[compressed-dicom], or export it uncompressed"
        )
    return decoder


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
    """The padding value with the sign of the pixels: some writers give -2000 as 63536, or the reverse."""
    bits = int(dataset.BitsAllocated)
    if int(dataset.PixelRepresentation) == 1:
        return value - (1 << bits) if value >= 1 << (bits - 1) else value
    return value + (1 << bits) if value < 0 else value
