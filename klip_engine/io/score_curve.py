"""The slice-score curve of the report as inline SVG: position in the body against score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from klip_engine.detection import Detection, Finding, SliceScore
from klip_engine.io.shown_slice import shown_slice

_WIDTH, _HEIGHT = 1100, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 40, 52
_NUMBERED = 8
"""Findings whose label is written beside their mark."""
_DOTS_UP_TO = 160
"""Longer curves are drawn without a dot per slice."""


@dataclass(frozen=True)
class _Axes:
    """Maps (z in mm, score) to pixels of the drawing."""

    z: tuple[float, float]
    score: tuple[float, float]

    def x_of(self, z_mm: float) -> float:
        return _LEFT + (z_mm - self.z[0]) / (self.z[1] - self.z[0]) * (_WIDTH - _LEFT - _RIGHT)

    def y_of(self, score: float) -> float:
        share = (score - self.score[0]) / (self.score[1] - self.score[0])
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def score_curve(detection: Detection) -> str:
    """SVG: score of each slice over its LPS z in mm, the threshold, and a mark for each finding.

    Colours come from the classes `axis`, `grid`, `curve`, `threshold` and `mark` of the page's style.
    """
    slices = sorted((s for s in detection.slices if math.isfinite(s.score)), key=lambda s: s.position_mm)
    if not slices:
        return "<p>No slice has a score.</p>"
    axes = _axes(slices, detection)
    parts = [
        f'<svg class="curve-plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'aria-label="Score of each slice over its position in the body">',
        *_grid(axes, slices),
        *_curve(axes, slices),
        *_threshold(axes, detection.threshold),
        *_marks(axes, detection.findings, slices),
        "</svg>",
    ]
    return "\n".join(parts)


def _axes(slices: list[SliceScore], detection: Detection) -> _Axes:
    positions = [s.position_mm for s in slices]
    scores = [s.score for s in slices]
    if math.isfinite(detection.threshold):
        scores.append(detection.threshold)
    margin = 5.0 if positions[0] == positions[-1] else 0.01 * (positions[-1] - positions[0])
    low, high = min(0.0, *scores, 0.0), max(scores)
    room = 0.08 * (high - low) or 1.0
    return _Axes((positions[0] - margin, positions[-1] + margin), (low, high + room))


def _grid(axes: _Axes, slices: list[SliceScore]) -> list[str]:
    """Lines and numbers: score at the left, z at the bottom, slice numbers at the top."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for score in _ticks(*axes.score, 5):
        y = axes.y_of(score)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{score:g}", "end"))
    for z_mm in _ticks(*axes.z, 10):
        x = axes.x_of(z_mm)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(_text(x, bottom + 19, f"{z_mm:g}".replace("-", "−"), "middle"))
    for chosen in _numbered_slices(slices):
        x = axes.x_of(chosen.position_mm)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 5}" y2="{_TOP}"/>')
        parts.append(_text(x, _TOP - 10, str(chosen.index), "middle"))
    parts += [
        f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>',
        f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{_TOP}" y2="{_TOP}"/>',
        _text((_LEFT + right) / 2, _HEIGHT - 8, "position z in mm (feet ← → head)", "middle"),
        _text((_LEFT + right) / 2, 12, "slice number", "middle"),
        '<text class="label" text-anchor="middle" '
        f'transform="translate(14 {(_TOP + bottom) / 2:.0f}) rotate(-90)">score</text>',
    ]
    return parts


def _numbered_slices(slices: list[SliceScore]) -> list[SliceScore]:
    """The slices nearest to round slice numbers."""
    indices = [s.index for s in slices]
    if min(indices) == max(indices):
        return slices[:1]
    nearest = {
        min(slices, key=lambda s: abs(s.index - tick)).index for tick in _ticks(min(indices), max(indices), 10)
    }
    return [s for s in slices if s.index in nearest]


def _curve(axes: _Axes, slices: list[SliceScore]) -> list[str]:
    points = [(axes.x_of(s.position_mm), axes.y_of(s.score), s) for s in slices]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    parts = [f'<polyline class="curve" points="{line}"/>']
    if len(points) > _DOTS_UP_TO:
        return parts
    for x, y, s in points:
        chance = "" if s.p_value is None else f", p {s.p_value:.3g}"
        title = f"slice {s.index}, z {s.position_mm:.1f} mm: score {s.score:.3g}{chance}"
        parts.append(
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.6"><title>{escape(title)}</title></circle>'
        )
    return parts


def _threshold(axes: _Axes, threshold: float) -> list[str]:
    if not math.isfinite(threshold):
        return []
    y, right = axes.y_of(threshold), _WIDTH - _RIGHT
    return [
        f'<line class="threshold" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>',
        f'<text class="threshold-label" x="{right - 4}" y="{y - 5:.1f}" text-anchor="end">'
        f"threshold {threshold:.3g}</text>",
    ]


def _marks(axes: _Axes, findings: Sequence[Finding], slices: list[SliceScore]) -> list[str]:
    """A ring around the slice of each finding, which may have several; the strongest with their labels."""
    shown: dict[SliceScore, list[Finding]] = {}
    for finding in findings:
        if (one := shown_slice(slices, finding)) is not None:
            shown.setdefault(one, []).append(finding)
    parts = []
    for one, several in shown.items():
        x, y = axes.x_of(one.position_mm), axes.y_of(one.score)
        title = "; ".join(f"finding {f.label}: score {f.score:.3g}" for f in several)
        parts.append(
            f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(title)}</title></circle>'
        )
        labels = ", ".join(str(f.label) for f in several if f.label <= _NUMBERED)
        if labels:
            parts.append(f'<text class="mark-label" x="{x + 8:.1f}" y="{y + 4:.1f}">{labels}</text>')
    return parts


def _text(x: float, y: float, content: str, anchor: str) -> str:
    return f'<text class="label" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between two values, about so many."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first = math.ceil(low / step)
    return [round(i * step, 10) + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]
