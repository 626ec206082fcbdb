"""Which series of a complete study are processed; every series gets a sentence that says why or why not.

The sentences name rules, never what stands in the headers: they end up in logs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.filereader import dcmread

from klip_engine.errors import InputError
from klip_engine.pacs.config import Rules

_TAGS: list[str | int | tuple[int, int]] = [
    "Modality",
    "ImageType",
    "BodyPartExamined",
    "SeriesDescription",
    "ProtocolName",
    "SliceThickness",
    "NumberOfFrames",
    "Rows",
]


@dataclass(frozen=True)
class SeriesFacts:
    """What the rules look at. thickness: mm, None where the header does not say."""

    series: str
    modality: str
    slices: int
    thickness: float | None = None
    is_original: bool = True
    is_localizer: bool = False
    has_pixels: bool = True
    body_part: str = ""
    words: str = field(default="", repr=False)


@dataclass(frozen=True)
class Verdict:
    """Whether a series is processed, and why or why not."""

    series: str
    chosen: bool
    reason: str


def read_series_facts(series: str, files: Sequence[Path]) -> SeriesFacts:
    """The facts of a series from one of its files, the middle one. Raises InputError where it is damaged."""
    try:
        header = dcmread(files[len(files) // 2], stop_before_pixels=True, specific_tags=list(_TAGS))
        image_type = [str(value).upper() for value in _listed(header.get("ImageType"))]
        thickness = header.get("SliceThickness")
        return SeriesFacts(
            series=series,
            modality=str(header.get("Modality", "")),
            slices=len(files) * int(header.get("NumberOfFrames") or 1),
            thickness=float(thickness) if thickness else None,
            is_original=not image_type or image_type[0] == "ORIGINAL",
            is_localizer="LOCALIZER" in image_type,
            has_pixels="Rows" in header,
            body_part=str(header.get("BodyPartExamined", "")).strip(),
            words=f"{header.get('SeriesDescription', '')} {header.get('ProtocolName', '')}",
        )
    except Exception as error:  # headers come from strangers
        raise InputError("the headers of the series cannot be read") from error


def choose_series(found: Sequence[SeriesFacts], rules: Rules) -> list[Verdict]:
    """A verdict for each series. Of those that no rule excludes: the most slices first, then the thinnest."""
    reasons = {facts.series: _excluded(facts, rules) for facts in found}
    fit = [facts for facts in found if not reasons[facts.series]]
    fit.sort(key=lambda facts: (-facts.slices, facts.thickness or 1e9, facts.series))
    for place, facts in enumerate(fit):
        if place >= rules.max_series_per_study:
            reasons[facts.series] = "another series of the study has more or thinner slices"
    return [
        Verdict(facts.series, not reasons[facts.series], reasons[facts.series] or "fits the rules")
        for facts in found
    ]


def _excluded(facts: SeriesFacts, rules: Rules) -> str:
    """The first rule that excludes a series, empty where none does."""
    parts = [part.upper() for part in rules.body_parts]
    if facts.modality != "CT" or not facts.has_pixels:
        return "not CT images"
    if facts.is_localizer:
        return "a localizer"
    if rules.original_only and not facts.is_original:
        return "derived images (rules.original_only)"
    if rules.description and not re.search(rules.description, facts.words, re.IGNORECASE):
        return "the description does not match (rules.description)"
    if rules.exclude_description and re.search(rules.exclude_description, facts.words, re.IGNORECASE):
        return "the description is excluded (rules.exclude_description)"
    if parts and facts.body_part.upper() not in parts:
        return "another body part, or none given (rules.body_parts)"
    if facts.slices < rules.min_slices:
        return "too few slices (rules.min_slices)"
    if facts.thickness is not None and facts.thickness > rules.max_slice_thickness_mm:
        return "slices too thick (rules.max_slice_thickness_mm)"
    return ""


def _listed(value: object) -> list[object]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]
