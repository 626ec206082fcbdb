"""What reports of volumes and of photographs share: the page, notices, the scale of the score, the details."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from klip_engine.detection import NOTICE, Detection
from klip_engine.io.report_pictures import SCORE_COLOURS, score_scale_top
from klip_engine.io.report_style import STYLE
from klip_engine.io.usual_slices import rate_text, rate_used, usual_slices
from klip_engine.version import __version__

_ROWS = 12
"""Findings in the open part of the table; the others are folded away."""


def page(sections: Sequence[str]) -> str:
    """A self-contained HTML page of these sections, without scripts, between the notice of research use."""
    body = "\n".join(
        [
            "<header><h1>KLIP report</h1>",
            f'<p class="notice" role="note">{escape(NOTICE)}</p></header>',
            "<main>",
            *sections,
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


def threshold_sentence(detection: Detection) -> str:
    """What is marked, and how often that happens where nothing is wrong."""
    count = len(detection.null_maxima)
    marked = f"Places with a score above {number_text(detection.threshold)} are marked"
    if rate_used(detection.settings, count) is None:
        return f"{marked}; no rate of false alarms is known for this threshold."
    return (
        f"{marked}. What is usual was counted on {usual_slices(detection.settings, count)}: of these, at most "
        f"{rate_text(detection.settings, count)} have such a place."
    )


def p_value_sentence(detection: Detection) -> str:
    """What the p-values of the table are shares of."""
    usual = usual_slices(detection.settings, len(detection.null_maxima))
    return f"The p-value is the share of what is usual ({usual}) that reaches this score somewhere."


def notices(detection: Detection) -> str:
    """What the reader has to know, as a section; empty where there is nothing."""
    if not detection.notices:
        return ""
    items = "".join(f"<li>{escape(n)}</li>" for n in detection.notices)
    return f'<section class="notices"><h2>Please note</h2><ul>{items}</ul></section>'


def colour_bar(detection: Detection) -> str:
    """SVG of the colour scale of the score pictures with 0, the threshold and the top written below."""
    top = score_scale_top(detection)
    stops = "".join(
        f'<stop offset="{i / (len(SCORE_COLOURS) - 1):.4f}" stop-color="rgb{colour}"/>'
        for i, colour in enumerate(SCORE_COLOURS)
    )
    ticks = [(0.0, "0"), (top, number_text(top))]
    if math.isfinite(detection.threshold) and 0 < detection.threshold < top:
        ticks.append((detection.threshold, f"threshold {number_text(detection.threshold)}"))
    marks = []
    for score, text in ticks:
        x = 20 + 280 * score / top
        marks.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="32"/>')
        crowded = 0 < score < top and (x < 110 or x > 240)
        y = 10 if crowded else 46
        anchor = "middle"
        if crowded:  # a long text in the middle of a mark at the end would leave the picture
            anchor = "start" if x < 110 else "end"
        marks.append(f'<text class="label" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>')
    return (
        '<svg class="colour-bar" viewBox="0 0 340 52" role="img" aria-label="Colour scale of the score">'
        f'<defs><linearGradient id="score-scale">{stops}</linearGradient></defs>'
        '<rect x="20" y="16" width="280" height="14" fill="url(#score-scale)" class="frame"/>'
        f"{''.join(marks)}</svg>"
    )


def findings_section(headings: Sequence[str], rows: Sequence[str], note: str) -> str:
    """The table of findings, its <tr> rows the strongest first, with a note below; empty without rows.

    headings and rows are HTML, the note is plain text.
    """
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)

    def table_of(some: Sequence[str]) -> str:
        body = "\n".join(some)
        table = f'<table class="findings"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        return f'<div class="wide">{table}</div>'

    folded = ""
    if len(rows) > _ROWS:
        weaker = f"<summary>{len(rows) - _ROWS} weaker findings</summary>{table_of(rows[_ROWS:])}"
        folded = f"<details>{weaker}</details>"
    return (
        f'<section><h2>Findings</h2>{table_of(rows[:_ROWS])}{folded}<p class="small">{escape(note)}</p></section>'
    )


def details(detection: Detection) -> str:
    """Settings, prior, input and timing, folded away."""
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
    """Nested settings as rows, those without a value left out: ('sampling.steps', '20'), ('score.terms 1', ...)."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(one, dict) for one in value):
        for number, one in enumerate(value, start=1):
            yield f"{prefix} {number}", _in_words(one)
    elif value is not None and not (isinstance(value, str | list | tuple) and len(value) == 0):
        yield prefix, _in_words(value)


def _in_words(value: Any) -> str:
    """One setting on one line: "window 0.02, 0.08; weighting coherent"."""
    if isinstance(value, dict):
        return "; ".join(
            f"{str(key).replace('_', ' ')} {_in_words(one)}" for key, one in value.items() if one is not None
        )
    if isinstance(value, list | tuple):
        return ", ".join(_in_words(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def p_value_text(p_value: float | None) -> str:
    """A p-value for people."""
    return "unknown" if p_value is None or not math.isfinite(p_value) else f"{p_value:.3g}"


def number_text(value: float, decimals: int | None = None) -> str:
    """For people: three significant digits or fixed decimals, a true minus sign."""
    if not math.isfinite(value):
        return "unknown"
    if decimals is None:
        magnitude = math.floor(math.log10(abs(value))) if value else 0
        decimals = min(max(0, 2 - magnitude), 6)
    return f"{value:.{decimals}f}".replace("-", "−")
