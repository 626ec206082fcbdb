"""The colour of a finding: the scale of the report, by its score, and as CIELab for DICOM."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from klip_engine.detection import Finding
from klip_engine.io.report_pictures import score_rgb

_DARKEST = 0.45
"""Place on the scale of the weakest finding: below it the colours vanish on a dark picture."""

_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = np.array([0.9505, 1.0, 1.0890])


def finding_colour(score: float, findings: Sequence[Finding]) -> tuple[int, int, int]:
    """RGB, 0 to 255, between the weakest and the strongest finding of a result."""
    scores = [finding.score for finding in findings]
    spread = max(scores) - min(scores)
    share = 1.0 if spread == 0 else (score - min(scores)) / spread
    place = np.float32(_DARKEST + (0.92 - _DARKEST) * share)
    red, green, blue = score_rgb(np.asarray([place], dtype=np.float32), 1.0)[0].tolist()
    return red, green, blue


def cielab(rgb: tuple[int, int, int]) -> list[int]:
    """sRGB as the three 16-bit numbers of Recommended Display CIELab Value (PS3.3 C.10.7.1.1).

    White is D65, sRGB's own, as in DCMTK and highdicom: what they write and read decides what is seen.
    """
    unit = np.asarray(rgb) / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    x, y, z = (_lab_curve(v) for v in _TO_XYZ @ linear / _WHITE)
    lightness, a, b = 116 * y - 16, 500 * (x - y), 200 * (y - z)
    scaled = [lightness * 65535 / 100, (a + 128) * 65535 / 255, (b + 128) * 65535 / 255]
    return [round(min(max(v, 0), 65535)) for v in scaled]


def _lab_curve(t: float) -> float:
    """The cube root, straight near black (CIE 15, 8.2.1)."""
    return float(np.cbrt(t)) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29
