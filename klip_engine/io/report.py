"""The report: one HTML file that explains itself, without scripts and loading nothing from elsewhere."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from klip_engine.detection import NOTICE, Detection, Finding
from klip_engine.io.report_pictures import (
    OTHER_FINDINGS,
    SCORE_COLOURS,
    THIS_FINDING,
    PictureRow,
    highest_slice,
    picture_rows,
    score_scale_top,
)
from klip_engine.io.report_style import STYLE
from klip_engine.io.score_curve import score_curve
from klip_engine.version import __version__

_SHOWN = 8
_ROWS = 12
"""Findings in the open part of the table; the others are folded away."""
_SCALE_BAR_MM = 50.0


def render_report(detection: Detection) -> str:
    """The detection as a self-contained HTML page, readable without the manual."""
    body = "\n".join(
        [
            "<header><h1>KLIP report</h1>",
            f'<p class="notice" role="note">{escape(NOTICE)}</p></header>',
            "<main>",
            _summary(detection),
            _notices(detection),
            f"<section><h2>Score along the body</h2>{score_curve(detection)}</section>",
            _table(detection),
            _pictures(detection),
            _details(detection),
            "</main>",
            f"<footer><p>klip-engine {escape(__version__)}. {escape(NOTICE)}</p></footer>",
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>KLIP report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _summary(detection: Detection) -> str:
    findings, slices = detection.findings, detection.slices
    if findings:
        touched = sum(any(f.slice_range[0] <= s.index <= f.slice_range[1] for f in findings) for s in slices)
        strongest = findings[0]
        regions = "1 suspicious region" if len(findings) == 1 else f"{len(findings)} suspicious regions"
        sentence = (
            f"{regions} in {touched} of {_count(len(slices), 'slice')}; the strongest is in "
            f"{_slices(strongest)} at {_place(strongest)}, with a score of {_number(strongest.score)}."
        )
    else:
        sentence = (
            f"Nothing in {_count(len(slices), 'slice')} scores above the threshold of "
            f"{_number(detection.threshold)}. That does not mean that the scan is normal."
        )
    return (
        f'<section class="summary"><p class="lead">{escape(sentence)}</p>'
        "<p>The score says how strongly the measurement pulls the reconstruction away from what a model of "
        "healthy anatomy expects at that place; 0 means not at all. It tells how unusual a place is for that "
        "model, not how likely a disease is.</p>"
        f"<p>{escape(_threshold_sentence(detection))}</p></section>"
    )


def _threshold_sentence(detection: Detection) -> str:
    rate = detection.settings.get("false_alarms")
    marked = f"Places with a score above {_number(detection.threshold)} are marked"
    if not isinstance(rate, int | float):
        return f"{marked}; no rate of false alarms is known for this threshold."
    return f"{marked}; on slices drawn from the model itself this happens in {100 * rate:.3g} % of the slices."


def _notices(detection: Detection) -> str:
    if not detection.notices:
        return ""
    items = "".join(f"<li>{escape(n)}</li>" for n in detection.notices)
    return f'<section class="notices"><h2>Please note</h2><ul>{items}</ul></section>'


def _table(detection: Detection) -> str:
    findings = detection.findings
    if not findings:
        return ""
    folded = ""
    if len(findings) > _ROWS:
        rest = _finding_rows(findings[_ROWS:])
        folded = f"<details><summary>{len(findings) - _ROWS} weaker findings</summary>{rest}</details>"
    return (
        f"<section><h2>Findings</h2>{_finding_rows(findings[:_ROWS])}{folded}"
        '<p class="small">x, y and z are the centre in patient coordinates (LPS): x grows to the patient’s '
        "left, y to the back, z to the head. The p-value is the share of slices drawn from that model that reach "
        f"this score somewhere. {_slice_numbering(detection)}</p></section>"
    )


def _slice_numbering(detection: Detection) -> str:
    if detection.geometry.is_axial:
        return "Slices are counted from 0, as in the voxel index of a viewer."
    return "The input is not axial: slices are those it was resampled to, counted from 0 at the feet."


def _finding_rows(findings: Sequence[Finding]) -> str:
    heads = ("No.", "score", "p-value", "x (mm)", "y (mm)", "z (mm)", "volume (ml)", "slices")
    head = "".join(f'<th scope="col">{h}</th>' for h in heads)
    rows = "\n".join(_finding_row(f) for f in findings)
    return f'<table class="findings"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _finding_row(finding: Finding) -> str:
    label = str(finding.label)
    if finding.label <= _SHOWN:
        label = f'<a href="#finding-{finding.label}">{label}</a>'
    first, last = finding.slice_range
    cells = [
        _number(finding.score),
        _p_value(finding.p_value),
        *(_number(v, 1) for v in finding.centroid_lps_mm),
        _number(finding.volume_ml, 2),
        str(first) if first == last else f"{first}–{last}",
    ]
    return f"<tr><td>{label}</td>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>"


def _pictures(detection: Detection) -> str:
    shown = [f for f in detection.findings if f.label <= _SHOWN]
    if shown:
        rows = picture_rows(detection, [f.label for f in shown])
        titles = [
            f"Finding {f.label}: score {_number(f.score)}, p {_p_value(f.p_value)}, {_slices(f)}" for f in shown
        ]
        heading = "Findings in pictures"
        if len(detection.findings) > len(shown):
            heading = f"The {len(shown)} strongest of {len(detection.findings)} findings in pictures"
    else:
        rows, titles, heading = (
            [highest_slice(detection)],
            ["Below the threshold"],
            "The slice with the highest score",
        )
    body = "\n".join(_row(row, title) for row, title in zip(rows, titles, strict=True))
    return f"<section><h2>{escape(heading)}</h2>{_legend(detection)}{body}</section>"


def _row(row: PictureRow, title: str) -> str:
    anchor = "" if row.label is None else f' id="finding-{row.label}"'
    window = f"{row.window.name} window, W {_number(row.window.width, 0)} L {_number(row.window.level, 0)} HU"
    bar = 100 * _SCALE_BAR_MM / row.width_mm
    figures = []
    for picture in row.pictures:
        data = base64.b64encode(picture.png).decode("ascii")
        figures.append(
            '<figure><div class="picture">'
            f'<img alt="{escape(picture.caption)}, axial slice at z {row.z_mm:.1f} mm" '
            f'src="data:image/png;base64,{data}">'
            '<span class="side right">R</span><span class="side left">L</span>'
            '<span class="side front">A</span><span class="side back">P</span>'
            f'<span class="scale" style="width:{bar:.2f}%">{_SCALE_BAR_MM / 10:g} cm</span></div>'
            f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        )
    return (
        f"<article{anchor}><h3>{escape(title)}</h3>"
        f'<p class="small">Axial slice at z = {_number(row.z_mm, 1)} mm · {escape(window)}</p>'
        f'<div class="row">{"".join(figures)}</div></article>'
    )


def _legend(detection: Detection) -> str:
    this, others = (f"rgb{colour}" for colour in (THIS_FINDING, OTHER_FINDINGS))
    overlay = (
        f'Overlay: <span class="swatch" style="border-color:{this}"></span> this finding, '
        f'<span class="swatch" style="border-color:{others}"></span> other findings.'
    )
    return (
        '<div class="legend"><p class="small">Seen from the feet: R and L are the patient’s right and left, '
        "A front, P back. Input: the image as given. Reconstruction: what the model makes of the "
        "measurement. "
        f"Score: by the colour scale, the body outlined. {overlay if detection.findings else ''}</p>"
        f"{_colour_bar(detection)}</div>"
    )


def _colour_bar(detection: Detection) -> str:
    """SVG of the colour scale of the score pictures with 0, the threshold and the top written below."""
    top = score_scale_top(detection)
    stops = "".join(
        f'<stop offset="{i / (len(SCORE_COLOURS) - 1):.4f}" stop-color="rgb{colour}"/>'
        for i, colour in enumerate(SCORE_COLOURS)
    )
    ticks = [(0.0, "0"), (top, _number(top))]
    if math.isfinite(detection.threshold) and 0 < detection.threshold < top:
        ticks.append((detection.threshold, f"threshold {_number(detection.threshold)}"))
    marks = []
    for score, text in ticks:
        x = 20 + 280 * score / top
        marks.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="32"/>')
        crowded = 0 < score < top and (x < 110 or x > 240)
        y = 10 if crowded else 46
        marks.append(f'<text class="label" x="{x:.1f}" y="{y}" text-anchor="middle">{escape(text)}</text>')
    return (
        '<svg class="colour-bar" viewBox="0 0 340 52" role="img" aria-label="Colour scale of the score">'
        f'<defs><linearGradient id="score-scale">{stops}</linearGradient></defs>'
        '<rect x="20" y="16" width="280" height="14" fill="url(#score-scale)" class="frame"/>'
        f"{''.join(marks)}</svg>"
    )


def _details(detection: Detection) -> str:
    groups = {
        "Settings": detection.settings,
        "Prior": detection.prior,
        "Input": detection.input,
        "Timing": detection.timing,
    }
    tables = []
    for name, values in groups.items():
        rows = "".join(
            f'<tr><th scope="row">{escape(key)}</th><td>{escape(text)}</td></tr>' for key, text in _flat(values)
        )
        tables.append(f'<h3>{name}</h3><table class="facts"><tbody>{rows}</tbody></table>')
    return f"<details><summary>Settings, prior, input and timing</summary>{''.join(tables)}</details>"


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as rows: ('sampling.steps', '20')."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple):
        yield prefix, ", ".join(str(v) for v in value)
    elif isinstance(value, float):
        yield prefix, f"{value:.6g}"
    else:
        yield prefix, "–" if value is None else str(value)


def _place(finding: Finding) -> str:
    x, y, z = (_number(v, 0) for v in finding.centroid_lps_mm)
    return f"x\u00a0{x}, y\u00a0{y}, z\u00a0{z}\u00a0mm"


def _slices(finding: Finding) -> str:
    first, last = finding.slice_range
    return f"slice {first}" if first == last else f"slices {first}–{last}"


def _p_value(p_value: float | None) -> str:
    return "unknown" if p_value is None or not math.isfinite(p_value) else f"{p_value:.3g}"


def _number(value: float, decimals: int | None = None) -> str:
    """For people: three significant digits or fixed decimals, a true minus sign."""
    if not math.isfinite(value):
        return "unknown"
    if decimals is None:
        magnitude = math.floor(math.log10(abs(value))) if value else 0
        decimals = min(max(0, 2 - magnitude), 6)
    return f"{value:.{decimals}f}".replace("-", "−")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
