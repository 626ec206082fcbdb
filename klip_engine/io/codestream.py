"""The size a compressed image claims in its first bytes: decoders allocate that before they look further."""

from __future__ import annotations

_STARTS_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}
"""Markers of JPEG (ITU-T T.81 B.1.1.3) and JPEG-LS (T.87 C.1.1.2) that state the size."""
_SIZ = b"\xff\x4f\xff\x51"
"""JPEG 2000: start of codestream, then the size (ITU-T T.800 A.5.1)."""


def check_codestream(frame: bytes, rows: int, columns: int) -> None:
    """Raise ValueError where a JPEG, JPEG-LS or JPEG 2000 codestream has another size or colours.

    Other encodings (RLE) pass: their decoder goes by the header alone.
    """
    found = (
        _jpeg_2000_size(frame) if _SIZ in frame[:256] else _jpeg_size(frame) if frame[:2] == b"\xff\xd8" else None
    )
    if found is not None and found != (rows, columns, 1):
        raise ValueError(f"the codestream holds {found}, the header says {(rows, columns, 1)}")


def _jpeg_2000_size(frame: bytes) -> tuple[int, int, int]:
    """Rows, columns and components of the image area on the reference grid."""
    start = frame.index(_SIZ) + 8  # after the length and the capabilities
    right, lower, left, upper = (int.from_bytes(frame[start + 4 * i : start + 4 * i + 4]) for i in range(4))
    components = int.from_bytes(frame[start + 32 : start + 34])
    return lower - upper, right - left, components


def _jpeg_size(frame: bytes) -> tuple[int, int, int]:
    at = 2
    while at + 10 <= len(frame):
        if frame[at] != 0xFF:
            raise ValueError("no marker where one should be")
        marker = frame[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in _STARTS_OF_FRAME:
            return int.from_bytes(frame[at + 5 : at + 7]), int.from_bytes(frame[at + 7 : at + 9]), frame[at + 9]
        at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    raise ValueError("the codestream does not state its size")
