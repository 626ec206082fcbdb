"""The report is one well-formed page that says what was found and loads nothing."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from klip_engine.detection import NOTICE, Detection, Finding
from klip_engine.io import png_bytes, render_report, write_results
from klip_engine.io.dicom_results import read_written
from klip_engine.io.picture_window import LUNG, SOFT_TISSUE, Window, window_around
from klip_engine.io.report_pictures import THIS_FINDING, overlay, picture_rows, score_rgb, score_scale_top
from klip_engine.io.score_curve import score_curve
from klip_engine.io.shown_slice import score_top, shown_slice
from klip_engine.scoring.null import NullDistribution
from klip_engine.volume import CTVolume, Geometry

VOID = {"meta", "img", "br"}


class Balance(HTMLParser):
    """Checks that every tag that opens also closes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [v for k, v in attrs if k == "id" and v]
        self.links += [v for k, v in attrs if k == "href" and v]
        self.attributes += attrs

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(html: str) -> Balance:
    parser = Balance()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


@pytest.mark.parametrize(("findings", "p_value"), [(0, 0.01), (1, None), (2, 0.01), (30, None)])
def test_page_is_well_formed_and_self_contained(
    detection_with: Callable[..., Detection], findings: int, p_value: float | None
) -> None:
    html = render_report(detection_with(findings=findings, p_value=p_value))
    page = parsed(html)
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"https?:|[=(]['\"]?//|@import|<script|url\((?!#)", html)
    assert all((v or "").startswith("data:image/png") for k, v in page.attributes if k == "src")
    assert html.count("<article") == min(max(findings, 1), 8)


def test_notice_and_summary_come_first(detection: Detection) -> None:
    html = render_report(detection)
    assert html.index(NOTICE) < html.index("2 suspicious regions in 2 of 6 slices") < html.index("<svg")
    assert "of these, at most 20 % (5 % was asked for) have such a place" in html  # 4 null slices: 1 in 5
    assert "above 1.50 are marked" in html


def test_nothing_found_is_said_plainly(detection_with: Callable[..., Detection]) -> None:
    html = render_report(detection_with(findings=0))
    assert "Nothing in 6 slices scores above the threshold of 1.50" in html
    assert "does not mean that the scan is normal" in html
    assert "Overlay" not in html


@pytest.mark.parametrize("source", ["123 slices of 90 healthy scans", "24 slices drawn from the prior"])
def test_the_slices_behind_the_rate_are_named_as_they_are(
    detection_with: Callable[..., Detection], source: str
) -> None:
    null = NullDistribution(tuple(np.linspace(0.1, 1.0, 123).tolist()), (), {})
    settings = {"false_alarms": 0.2, "null": {"source": source}}
    html = render_report(detection_with(settings=settings, null_maxima=null.maxima, threshold=null.threshold(0.2)))
    assert f"counted on {source}: of these, at most 20 % have such a place" in html
    assert f"the share of what is usual ({source}) that reaches" in html
    assert ("from the prior" in html) == ("prior" in source)
    assert "from the model" not in html


def test_the_rate_that_was_used_is_stated(detection_with: Callable[..., Detection]) -> None:
    null = NullDistribution(tuple(np.linspace(0.1, 1.0, 123).tolist()), (), {})
    html = render_report(detection_with(settings={"false_alarms": 0.001}, null_maxima=null.maxima))
    assert f"at most {100 * null.finest_rate:.3g} % (0.1 % was asked for)" in html


def test_unknown_p_values_and_rates_are_said(detection_with: Callable[..., Detection]) -> None:
    html = render_report(detection_with(p_value=None, settings={}))
    assert "<td>unknown</td>" in html
    assert "no rate of false alarms is known" in html
    assert "None" not in html


def test_every_text_is_escaped(detection: Detection) -> None:
    attack = "<script>alert('x')</script> & \"quotes\""
    html = render_report(
        replace(
            detection,
            notices=(attack,),
            prior={"name": attack},
            settings={attack: attack},
            input={"file": attack},
        )
    )
    parsed(html)
    assert "<script" not in html
    assert unescape(html).count(attack) == 5


def test_settings_are_folded_and_complete(detection: Detection) -> None:
    html = render_report(detection)
    details = html[html.index("<details>") :]
    for text in ("sampling.steps", "network_evaluations", "240", "ab12", "NRRD"):
        assert text in details


def test_settings_are_words_and_only_those_with_a_value(detection_with: Callable[..., Detection]) -> None:
    terms = [{"window": [0.02, 0.08], "weighting": "coherent"}, {"window": [0.2, 0.7], "weighting": "plain"}]
    settings = {"operator": {"views": None, "add_noise": False, "noise_hu": 20.0}, "score": {"terms": terms}}
    html = render_report(detection_with(settings=settings))
    assert "window 0.02, 0.08; weighting coherent" in html
    assert "window 0.2, 0.7; weighting plain" in html
    assert '<th scope="row">operator.noise_hu</th><td>20</td>' in html
    assert "views" not in html
    assert not re.search(r"[{}]|&#x27;|None|<td>–</td>", html[html.index("<details>") :])


def test_page_without_finite_scores_or_threshold_renders(detection: Detection) -> None:
    broken = replace(
        detection,
        threshold=float("nan"),
        slices=tuple(replace(s, score=float("nan")) for s in detection.slices),
    )
    html = render_report(broken)
    parsed(html)
    assert ">nan<" not in html


def test_single_slice_renders(detection_with: Callable[..., Detection]) -> None:
    detection = detection_with(findings=1)
    working = detection.working
    first = {
        name: getattr(working, name)[:1] for name in ("measured", "reconstruction", "score", "regions", "body")
    }
    size = (*working.geometry.size[:2], 1)
    working = replace(working, geometry=replace(working.geometry, size=size), **first)
    parsed(render_report(replace(detection, working=working, slices=detection.slices[:1])))


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_png_bytes_keep_every_pixel() -> None:
    for shape in ((5, 7), (5, 7, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        assert np.array_equal(decoded(png_bytes(pixels)), pixels)


def test_pictures_lie_in_the_page(detection: Detection) -> None:
    html = render_report(detection)
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert len(sources) == 8
    assert all(decoded(base64.b64decode(s)).shape[:2] > (50, 50) for s in sources)


@pytest.mark.parametrize(("width", "ringed"), [(3, True), (9, True), (12, False)])
def test_a_small_finding_is_ringed_and_a_large_one_is_not(width: int, ringed: bool) -> None:
    this = np.zeros((80, 100), dtype=bool)
    this[40 : 40 + width, 50 : 50 + width] = True
    picture = overlay(np.zeros(this.shape, dtype=np.uint8), this, np.zeros_like(this))
    coloured = np.argwhere((picture == THIS_FINDING).all(axis=-1))
    away = np.hypot(*(coloured - (39.5 + width / 2, 49.5 + width / 2)).T)
    assert bool((away > 13).any()) is ringed
    assert away.min() > 1, "the finding itself stays to be seen"


def marked(detection: Detection, flip: np.ndarray) -> Detection:
    """The detection with a source of air but for a bright ball at the patient's left back."""
    axes = flip @ np.eye(3)
    source = detection.geometry
    centre = np.array(detection.findings[0].centroid_lps_mm)
    corner = centre - axes @ np.array([199.0, 199.0, 10.0])
    geometry = Geometry((200, 200, 6), (2.0, 2.0, 4.0), tuple(corner), tuple(axes.ravel()))  # type: ignore[arg-type]
    z, y, x = np.indices((6, 200, 200))
    lps = geometry.to_lps(np.stack([x, y, z], axis=-1))
    ball = np.linalg.norm((lps - centre - np.array([40.0, 25.0, 0.0]))[..., :2], axis=-1) < 12
    hu = np.where(ball, 500, -1000).astype(np.float32)
    assert source is not None
    return replace(detection, source=CTVolume(hu, geometry))


@pytest.mark.parametrize("flip", [np.diag([1.0, 1.0, 1.0]), np.diag([-1.0, -1.0, 1.0]), np.diag([1.0, -1.0, -1.0])])
def test_patient_left_is_on_the_right_and_back_is_below(
    detection_with: Callable[..., Detection], flip: np.ndarray
) -> None:
    detection = marked(detection_with(findings=1), flip)
    row = picture_rows(detection, [1])[0]
    pictures = {p.caption: decoded(p.png) for p in row.pictures}
    bright_y, bright_x = np.argwhere(pictures["Input"] > 200).mean(axis=0)
    score_y, score_x = np.argwhere(pictures["Score"].sum(axis=-1) > 500).mean(axis=0)
    assert bright_x - score_x == pytest.approx(40, abs=1.0)  # mm, to the patient's left
    assert bright_y - score_y == pytest.approx(25, abs=1.0)  # mm, to the back
    assert row.width_mm == pictures["Input"].shape[1]


def chest_slice() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU [y, x] of 1 mm: a body of soft tissue in air with a lung of 60 mm radius; x and y of its pixels."""
    y, x = np.indices((260, 360))
    hu = np.full(y.shape, -1000.0, dtype=np.float32)
    hu[((x - 180) / 160) ** 2 + ((y - 130) / 110) ** 2 < 1] = 40.0
    hu[(x - 110) ** 2 + (y - 130) ** 2 < 60**2] = -850.0
    return hu, x, y


@pytest.mark.parametrize(
    ("centre", "radius", "hu_inside", "window"),
    [
        ((110, 130), 8, 40.0, LUNG),  # a solid nodule in lung
        ((110, 130), 8, -850.0, LUNG),
        ((250, 130), 15, -1000.0, SOFT_TISSUE),  # gas in the abdomen
        ((250, 130), 8, 40.0, SOFT_TISSUE),
        ((180, 24), 5, 40.0, SOFT_TISSUE),  # below the skin: half of what is around is air outside the body
    ],
)
def test_window_follows_the_tissue_around_a_region(
    centre: tuple[int, int], radius: int, hu_inside: float, window: Window
) -> None:
    hu, x, y = chest_slice()
    region = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
    hu[region] = hu_inside
    assert window_around(hu, region) is window


def test_pictures_without_a_region_are_of_soft_tissue() -> None:
    hu, _, _ = chest_slice()
    assert window_around(hu, np.zeros(hu.shape, dtype=bool)) is SOFT_TISSUE


def test_each_mark_of_the_curve_lies_on_the_slice_that_shows_the_finding(detection: Detection) -> None:
    """The first finding has its centre far from its peak; the second is not the highest on any slice."""
    slices = [replace(s, score=float(score)) for s, score in zip(detection.slices, (9, 1, 2, 4, 3, 1), strict=True)]
    z = [s.position_mm for s in slices]
    findings = (
        Finding(1, 9.0, 0.01, (0.0, 0.0, z[1]), 1.0, (0, 2)),
        Finding(2, 2.5, 0.01, (0.0, 0.0, z[4] + 0.2), 1.0, (3, 5)),
    )
    html = score_curve(replace(detection, slices=tuple(slices), findings=findings))
    line = re.search(r'<polyline class="curve" points="([^"]+)"', html)
    assert line is not None
    points = [tuple(map(float, point.split(","))) for point in line[1].split()]
    marks = re.findall(r'<circle class="mark" cx="([^"]+)" cy="([^"]+)"', html)
    assert [tuple(map(float, mark)) for mark in marks] == [points[0], points[4]]


def test_the_page_of_a_pacs_shows_the_same_slices_on_the_same_scale(tmp_path: Path, detection: Detection) -> None:
    write_results(detection, tmp_path / "out")
    written = read_written(tmp_path / "out")
    assert score_top(written.slices, written.findings, written.threshold) == score_scale_top(detection)
    heights = [shown_slice(written.slices, finding).position_mm for finding in written.findings]
    assert heights == pytest.approx([row.z_mm for row in picture_rows(detection, [1, 2])], abs=1e-6)
    html = unescape(render_report(detection))
    for finding in written.findings:
        x, y, z = (f"{v:.0f}".replace("-", "−") for v in finding.centroid_lps_mm)
        assert f"centre x\u00a0{x}, y\u00a0{y}, z\u00a0{z}\u00a0mm</h3>" in html


def test_colour_scale_gets_steadily_lighter() -> None:
    rgb = score_rgb(np.linspace(0, 1, 256, dtype=np.float32), 1.0) / 255.0
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    lightness = np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)
    steps = np.diff(lightness)
    assert (steps > -0.05).all()
    assert steps.std() < 0.35 * steps.mean()


def test_report_is_written_as_utf8(tmp_path: Path, detection: Detection) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_report(detection), encoding="utf-8")
    assert "−" in path.read_text(encoding="utf-8")
