"""The entry for Slicer's Extensions Index, the texts and pictures, and that they agree with each other."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from klip_engine.detection import NOTICE

ROOT = Path(__file__).resolve().parents[2]
ICONS = ROOT / "KLIPExtension" / "Resources" / "Icons"
CATEGORIES = {"Quantification", "Segmentation"}
SCHEMA_FIELDS = {
    "$schema": str,
    "category": str,
    "scm_url": str,
    "scm_revision": str,
    "scm_type": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "enabled": bool,
    "tier": int,
}
"""slicer-extension-catalog-entry-schema-v1.0.1: no other field may be there."""


@pytest.fixture
def entry() -> dict[str, object]:
    return json.loads((ROOT / "KLIP.json").read_text(encoding="utf-8"))


@pytest.fixture
def cmake() -> dict[str, str]:
    """The literal values the index reads out of CMakeLists.txt."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    values = dict(re.findall(r'set\(EXTENSION_([A-Z]+) "([^"]+)"\)', text))
    return values | {"PROJECT": re.findall(r"project\(([^)\s]+)", text)[0]}


def test_the_entry_follows_the_schema(entry):
    assert set(entry) <= set(SCHEMA_FIELDS)
    assert {"$schema", "category", "scm_url"} <= set(entry)
    assert all(isinstance(value, SCHEMA_FIELDS[name]) for name, value in entry.items())
    assert entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert entry["scm_type"] == "git"
    assert entry["tier"] in (1, 3, 5)


def test_the_entry_agrees_with_cmake(entry, cmake):
    assert cmake["PROJECT"] == "KLIP", "the index wants the entry's file name"
    assert entry["category"] == cmake["CATEGORY"]
    assert entry["category"] in CATEGORIES
    assert entry["build_dependencies"] == cmake["DEPENDS"].split()


def test_one_address_of_the_repository(entry, cmake, library):
    address = library("about").HOMEPAGE
    assert cmake["HOMEPAGE"] == address
    assert entry["scm_url"] == f"{address}.git"
    assert "slicer" in address.rsplit("/", 1)[1].lower(), "the index wants Slicer in the repository's name"
    raw = address.replace("https://github.com/", "https://raw.githubusercontent.com/") + "/main/"
    for url in [cmake["ICONURL"], *cmake["SCREENSHOTURLS"].split()]:
        assert url.startswith(raw)
        if "/docs/images/" not in url:
            assert (ROOT / url.removeprefix(raw)).is_file()


def test_the_icon_is_one(entry):
    picture = Image.open(ICONS / "KLIP.png")
    assert picture.size == (128, 128)
    assert picture.mode == "RGBA"
    assert picture.getpixel((0, 0))[3] == 0, "rounded corners"


def test_the_icons_hot_spot_stands_out_in_a_tool_bar():
    """At 24 pixels there are saturated orange pixels, and dark and light ones to tell the lungs from the body."""
    small = np.asarray(Image.open(ICONS / "KLIP.png").resize((24, 24), Image.Resampling.LANCZOS)).astype(int)
    red, green, blue, alpha = np.moveaxis(small, -1, 0)
    assert ((red > 200) & (blue < 110) & (alpha > 200)).sum() >= 8
    assert ((red + green + blue < 240) & (alpha > 200)).sum() >= 60
    assert ((red + green + blue > 540) & (alpha > 200)).sum() >= 60


def test_the_thumbnail_has_the_size_sample_data_asks_for():
    assert Image.open(ICONS / "SampleData.png").size == (260, 280)


class Words(HTMLParser):
    """The text of an HTML fragment; open tags that are left over."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.open = "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_help_says_what_every_result_says(library):
    words = Words(library("about").help_text())
    assert NOTICE in " ".join(words.text.split())
    assert words.open == []


def test_the_acknowledgement_names_method_data_and_licence(library):
    words = Words(library("about").acknowledgement_text())
    for name in ("arXiv 2605.31596", "The Cancer Imaging Archive", "Apache License"):
        assert name in " ".join(words.text.split())
    assert words.open == []


def test_the_description_says_that_it_is_no_medical_device(cmake):
    assert "not a medical device" in cmake["DESCRIPTION"]
