"""The report of a photograph: input, reconstruction, score and findings side by side, and the table."""

from __future__ import annotations

import base64
import math
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from klip_engine.detection import Finding, PhotographDetection
from klip_engine.io.report_parts import (
    colour_bar,
    details,
    findings_section,
    notices,
    number_text,
    p_value_sentence,
    p_value_text,
    page,
    threshold_sentence,
)
from klip_engine.io.report_pictures import THIS_FINDING, grown, png_bytes, score_rgb, score_scale_top
from klip_engine.words import counted

_LEAST_SIDE = 480
"""Smaller pictures are enlarged by a whole factor, so that outlines stay thin beside their pixels."""
_NUMBERED = 8


def render_photograph_report(detection: PhotographDetection) -> str:
    """The detection in a photograph as a self-contained HTML page."""
    return page(
        [_summary(detection), notices(detection), _pictures(detection), _table(detection), details(detection)]
    )


def _summary(detection: PhotographDetection) -> str:
    findings, top = detection.findings, detection.slices[0]
    if findings:
        x, y, _ = findings[0].centroid_lps_mm
        sentence = (
            f"{counted(len(findings), 'suspicious region')}; the strongest is around column {x:.0f}, row "
            f"{y:.0f}, with a score of {number_text(findings[0].score)} (p {p_value_text(findings[0].p_value)})."
        )
    else:
        sentence = (
            f"Nothing scores above the threshold of {number_text(detection.threshold)}: the highest score is "
            f"{number_text(top.score)} (p {p_value_text(top.p_value)})."
        )
    return (
        f'<section class="summary"><p class="lead">{escape(sentence)}</p>'
        "<p>The score says how strongly the measurement pulls the reconstruction away from what the model expects "
        "at that place; 0 means not at all.</p>"
        f"<p>{escape(threshold_sentence(detection))}</p></section>"
    )


def _pictures(detection: PhotographDetection) -> str:
    measured = np.rint(detection.working.measured[0]).astype(np.uint8)
    score = np.nan_to_num(detection.score[0], nan=0.0, posinf=0.0, neginf=0.0)
    pictures = {
        "Input": _enlarged(measured),
        "Reconstruction": _enlarged(detection.reconstruction),
        "Score": _enlarged(score_rgb(score, score_scale_top(detection))),
        "Findings": _outlined(_enlarged(measured), _enlarged(detection.regions[0]) > 0),
    }
    figures = []
    for caption, pixels in pictures.items():
        data = base64.b64encode(png_bytes(pixels.squeeze())).decode("ascii")
        numbers = _numbers(detection) if caption == "Findings" else ""
        figures.append(
            f'<figure><div class="picture"><img alt="{caption}" src="data:image/png;base64,{data}">{numbers}</div>'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return (
        '<section><h2>Pictures</h2><div class="legend"><p class="small">Input: the picture as given. '
        "Reconstruction: what the model makes of the measurement. Score: by the colour scale. Findings: outlined, "
        f"the strongest numbered.</p>{colour_bar(detection)}</div>"
        '<article><div class="row" style="grid-template-columns:repeat(2,1fr)">'
        f"{''.join(figures)}</div></article></section>"
    )


def _enlarged(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Every pixel of [y, x, ...] as a square of whole pixels, the shorter side at least `_LEAST_SIDE` long."""
    factor = max(1, math.ceil(_LEAST_SIDE / min(pixels.shape[:2])))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _outlined(picture: npt.NDArray[np.uint8], regions: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """The picture as RGB, the regions [y, x] outlined."""
    rgb = np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture.copy()
    rgb[grown(regions, 5) & ~regions] = 0  # a rim that shows on any colour
    rgb[grown(regions, 3) & ~regions] = THIS_FINDING
    return rgb


def _numbers(detection: PhotographDetection) -> str:
    """The labels of the strongest findings over the picture, a little to the right of their middles."""
    width, height, _ = detection.geometry.size
    spans = []
    for finding in detection.findings[:_NUMBERED]:
        x, y, _ = finding.centroid_lps_mm
        place = f"left:{100 * (x + 0.5) / width:.2f}%;top:{100 * (y + 0.5) / height:.2f}%"
        spans.append(f'<span class="side" style="{place};font-weight:600">{finding.label}</span>')
    return "".join(spans)


def _table(detection: PhotographDetection) -> str:
    return findings_section(
        ("No.", "score", "p-value", "column", "row", "pixels"),
        [_finding_row(finding) for finding in detection.findings],
        "Column and row are the centre in pixels from the upper left, counted from 0. "
        f"{p_value_sentence(detection)}",
    )


def _finding_row(finding: Finding) -> str:
    x, y, _ = finding.centroid_lps_mm
    cells = (
        str(finding.label),
        number_text(finding.score),
        p_value_text(finding.p_value),
        number_text(x, 1),
        number_text(y, 1),
        f"{1000 * finding.volume_ml:.0f}",
    )
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
