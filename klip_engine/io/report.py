"""The report: one HTML file that explains itself, without scripts and loading nothing from elsewhere."""

from __future__ import annotations

import base64
from html import escape

from klip_engine.detection import Detection, Finding
from klip_engine.io.measured_scan_text import FIRST_IMAGE_MEANING, is_of_projections, measured_section
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
from klip_engine.io.report_pictures import (
    OTHER_FINDINGS,
    THIS_FINDING,
    PictureRow,
    highest_slice,
    picture_rows,
)
from klip_engine.io.score_curve import score_curve
from klip_engine.words import counted, range_text, slices_from_to

_SHOWN = 8
_SCALE_BAR_MM = 50.0


def render_report(detection: Detection) -> str:
    """The detection as a self-contained HTML page, readable without the manual."""
    return page(
        [
            _summary(detection),
            notices(detection),
            measured_section(detection),
            f'<section><h2>Score along the body</h2><div class="wide">{score_curve(detection)}</div></section>',
            _table(detection),
            _pictures(detection),
            details(detection),
        ]
    )


def _summary(detection: Detection) -> str:
    findings, slices = detection.findings, detection.slices
    if findings:
        touched = sum(any(f.slice_range[0] <= s.index <= f.slice_range[1] for f in findings) for s in slices)
        strongest = findings[0]
        regions = counted(len(findings), "suspicious region")
        sentence = (
            f"{regions} in {touched} of {counted(len(slices), 'slice')}; the strongest is in "
            f"{_slices(strongest)} at {_place(strongest)}, with a score of {number_text(strongest.score)}."
        )
    else:
        sentence = (
            f"Nothing in {counted(len(slices), 'slice')} scores above the threshold of "
            f"{number_text(detection.threshold)}. That does not mean that the scan is normal."
        )
    return (
        f'<section class="summary"><p class="lead">{escape(sentence)}</p>'
        "<p>The score says how strongly the measurement pulls the reconstruction away from what a model of "
        "healthy anatomy expects at that place; 0 means not at all. It tells how unusual a place is for that "
        "model, not how likely a disease is.</p>"
        f"<p>{escape(threshold_sentence(detection))}</p></section>"
    )


def _table(detection: Detection) -> str:
    return findings_section(
        ("No.", "score", "p-value", "x (mm)", "y (mm)", "z (mm)", "volume (ml)", "slices"),
        [_finding_row(finding) for finding in detection.findings],
        "x, y and z are the centre in patient coordinates (LPS): x grows to the patient’s "
        f"left, y to the back, z to the head. {p_value_sentence(detection)} {_slice_numbering(detection)}",
    )


def _slice_numbering(detection: Detection) -> str:
    if detection.geometry.is_axial:
        return "Slices are counted from 0, as in the voxel index of a viewer."
    return "The input is not axial: slices are those it was resampled to, counted from 0 at the feet."


def _finding_row(finding: Finding) -> str:
    label = str(finding.label)
    if finding.label <= _SHOWN:
        label = f'<a href="#finding-{finding.label}">{label}</a>'
    first, last = finding.slice_range
    cells = [
        number_text(finding.score),
        p_value_text(finding.p_value),
        *(number_text(v, 1) for v in finding.centroid_lps_mm),
        number_text(finding.volume_ml, 2),
        range_text(first, last),
    ]
    return f"<tr><td>{label}</td>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>"


def _pictures(detection: Detection) -> str:
    shown = [f for f in detection.findings if f.label <= _SHOWN]
    if shown:
        rows = picture_rows(detection, [f.label for f in shown])
        titles = [
            f"Finding {f.label}: score {number_text(f.score)}, p {p_value_text(f.p_value)}, {_slices(f)}, "
            f"centre {_place(f)}"
            for f in shown
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
    window = (
        f"{row.window.name} window, W {number_text(row.window.width, 0)} L {number_text(row.window.level, 0)} HU"
    )
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
            f'<span class="scale" style="width:{bar:.2f}%"><b>{_SCALE_BAR_MM / 10:g} cm</b></span></div>'
            f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        )
    return (
        f"<article{anchor}><h3>{escape(title)}</h3>"
        f'<p class="small">Axial slice shown: z\u00a0{number_text(row.z_mm, 1)}\u00a0mm · {escape(window)}</p>'
        f'<div class="row">{"".join(figures)}</div></article>'
    )


def _legend(detection: Detection) -> str:
    this, others = (f"rgb{colour}" for colour in (THIS_FINDING, OTHER_FINDINGS))
    overlay = (
        f'Overlay: <span class="swatch" style="border-color:{this}"></span> this finding (a small one in a ring), '
        f'<span class="swatch" style="border-color:{others}"></span> other findings.'
    )
    shown = FIRST_IMAGE_MEANING if is_of_projections(detection) else "Input: the image as given."
    return (
        '<div class="legend"><p class="small">Seen from the feet: R and L are the patient’s right and left, '
        f"A front, P back. {shown} Reconstruction: what the model makes of the "
        "measurement. "
        f"Score: by the colour scale, the body outlined. {overlay if detection.findings else ''}</p>"
        f"{colour_bar(detection)}</div>"
    )


def _place(finding: Finding) -> str:
    x, y, z = (number_text(v, 0) for v in finding.centroid_lps_mm)
    return f"x\u00a0{x}, y\u00a0{y}, z\u00a0{z}\u00a0mm"


def _slices(finding: Finding) -> str:
    return slices_from_to(*finding.slice_range)
