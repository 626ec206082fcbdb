"""Deflated DICOM (PS3.5 A.5) is measured before it is inflated: a small file may hold any number of bytes."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from klip_engine.errors import InputError
from klip_engine.io.bounded_file import BoundedFile

INFLATED_LIMIT = 2**31
"""Bytes: four thousand slices of 512 x 512 in one file."""
_PIECE = 2**20


def check_inflated_size(path: Path) -> None:
    """Raise InputError where a deflated file is larger than `INFLATED_LIMIT`; others pass unread.

    Raises zlib.error and whatever pydicom raises where the file is damaged.
    """
    with BoundedFile(path) as stream:
        read_preamble(stream, force=True)
        meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            _measure(stream, path)


def _measure(stream: BinaryIO, path: Path) -> None:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total, rest = 0, b""
    while not inflater.eof:
        deflated = rest or stream.read(_PIECE)
        if not deflated:
            return
        total += len(inflater.decompress(deflated, _PIECE))
        rest = inflater.unconsumed_tail
        if total > INFLATED_LIMIT:
            raise InputError(
                f"{path} is deflated and holds more than {INFLATED_LIMIT // 2**20} MiB, which no CT needs; "
                "export it again without compression"
            )
