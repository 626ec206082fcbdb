"""The colour of a finding: the scale of the report, by its score, and as CIELab for DICOM."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from klip_engine.detection import Finding
from klip_engine.io.report_pictures import score_rgb

_DARKEST = 0.45
"""Place on the scale of the weakest finding: below it the colours vanish on a dark picture."""

_TO_XYZ = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
_D50 = np.array([0.9642, 1.0, 0.8249])


def finding_colour(score: float, findings: Sequence[Finding]) -> tuple[int, int, int]:
    """RGB, 0 to 255, between the weakest and the strongest finding of a result."""
    scores = [finding.score for finding in findings]
    spread = max(scores) - min(scores)
    share = 1.0 if spread == 0 else (score - min(scores)) / spread
    place = np.float32(_DARKEST + (0.92 - _DARKEST) * share)
    red, green, blue = score_rgb(np.asarray([place], dtype=np.float32), 1.0)[0].tolist()
    return red, green, blue


def cielab(rgb: tuple[int, int, int]) -> list[int]:
    """sRGB as the three 16-bit numbers of Recommended Display CIELab Value (PS3.3 C.10.7.1.1; white point D50)."""
    unit = np.asarray(rgb) / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    x, y, z = (_lab_curve(v) for v in _TO_XYZ @ linear / _D50)
    lightness, a, b = 116 * y - 16, 500 * (x - y), 200 * (y - z)
    scaled = [lightness * 65535 / 100, (a + 128) * 65535 / 255, (b + 128) * 65535 / 255]
    return [round(min(max(v, 0), 65535)) for v in scaled]


def _lab_curve(t: float) -> float:
    """The cube root, straight near black (CIE 15, 8.2.1)."""
    return float(np.cbrt(t)) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29
