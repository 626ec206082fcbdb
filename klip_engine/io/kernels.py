"""How sharp a CT reconstruction kernel is, by its name (ConvolutionKernel, PS3.3 C.8.2.1); all makers differ.

Siemens: letters and a two-digit sharpness (B30f, I70f, Br40d, Bl57), 50 and more for lung and bone. GE: words.
Canon and Toshiba: FC and a number, 1 to 29 soft, 30 to 39 bone, 50 to 59 lung, 80 to 89 finest detail. Philips:
A, B and C soft, D, E, L and all that begin with Y sharp.
"""

from __future__ import annotations

import re
from enum import IntEnum

_SIEMENS = re.compile(r"[BHIJTUQ][A-Z]?(\d\d)[A-Z]?")
_CANON = re.compile(r"FC(\d\d?)")
_PHILIPS_SOFT = re.compile(r"I?[ABC]|U[BC]|BRAIN STANDARD|SMOOTH")
_PHILIPS_SHARP = re.compile(r"I?[DEL]|Y[A-E]|UD")
_WORDS = {
    "STANDARD": "soft",
    "STND": "soft",
    "SOFT": "soft",
    "LUNG": "sharp",
    "CHST": "sharp",
    "BONE": "sharp",
    "BONEPLUS": "sharp",
    "BONE+": "sharp",
    "EDGE": "sharp",
    "EDGE+": "sharp",
    "DETAIL": "sharp",
    "ULTRA": "sharp",
}
"""GE's names, and words that others use."""
_SIEMENS_SHARP = 50


class Sharpness(IntEnum):
    """In the order of preference: priors learn from soft kernels."""

    SOFT = 0
    UNKNOWN = 1
    SHARP = 2


def sharpness(kernel: str) -> Sharpness:
    """The family of a kernel's name; UNKNOWN for a name that follows no known maker's rules."""
    name = kernel.strip().upper()
    if name in _WORDS:
        return _when(_WORDS[name] == "sharp")
    if match := _SIEMENS.fullmatch(name):
        return _when(int(match[1]) >= _SIEMENS_SHARP)
    if match := _CANON.fullmatch(name):
        number = int(match[1])
        if 1 <= number < 30:
            return Sharpness.SOFT
        return Sharpness.SHARP if 30 <= number < 40 or 50 <= number < 60 or 80 <= number < 90 else Sharpness.UNKNOWN
    if _PHILIPS_SOFT.fullmatch(name):
        return Sharpness.SOFT
    return Sharpness.SHARP if _PHILIPS_SHARP.fullmatch(name) else Sharpness.UNKNOWN


def _when(is_sharp: bool) -> Sharpness:
    return Sharpness.SHARP if is_sharp else Sharpness.SOFT
