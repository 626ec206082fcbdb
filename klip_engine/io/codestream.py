"""What a compressed image claims in its first bytes, checked before a decoder allocates by it or dies of it."""

from __future__ import annotations

from typing import NamedTuple

_STARTS_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}
"""Markers of JPEG (ITU-T T.81 B.1.1.3) and JPEG-LS (T.87 C.1.1.2) that state the size."""
_SIZ = b"\xff\x4f\xff\x51"
"""JPEG 2000: start of codestream, then the size (ITU-T T.800 A.5.1)."""


class Claim(NamedTuple):
    """Size and sample format of a codestream."""

    rows: int
    columns: int
    components: int
    bits: int


def check_codestream(frame: bytes, rows: int, columns: int, bits_allocated: int) -> None:
    """Raise ValueError where a JPEG, JPEG-LS or JPEG 2000 codestream is of another size, coloured or too deep.

    Other encodings (RLE) pass: their decoder goes by the header alone.
    """
    if _SIZ in frame[:256]:
        claim = _jpeg_2000(frame)
    elif frame[:2] == b"\xff\xd8":
        claim = _jpeg(frame)
    else:
        return
    if claim[:3] != (rows, columns, 1):
        raise ValueError(f"the codestream holds {claim[:3]}, the header says {(rows, columns, 1)}")
    if not 2 <= claim.bits <= bits_allocated <= 16:
        raise ValueError(f"the codestream has {claim.bits} bits a sample in {bits_allocated} allocated")


def _jpeg_2000(frame: bytes) -> Claim:
    """The image area on the reference grid."""
    start = frame.index(_SIZ) + 8  # after the length and the capabilities
    right, lower, left, upper = (int.from_bytes(frame[start + 4 * i : start + 4 * i + 4]) for i in range(4))
    components, bits = int.from_bytes(frame[start + 32 : start + 34]), (frame[start + 34] & 0x7F) + 1
    return Claim(lower - upper, right - left, components, bits)


def _jpeg(frame: bytes) -> Claim:
    at = 2
    while at + 10 <= len(frame):
        if frame[at] != 0xFF:
            raise ValueError("no marker where one should be")
        marker = frame[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in _STARTS_OF_FRAME:
            rows, columns = (int.from_bytes(frame[at + place : at + place + 2]) for place in (5, 7))
            return Claim(rows, columns, components=frame[at + 9], bits=frame[at + 4])
        at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    raise ValueError("the codestream does not state its size")
