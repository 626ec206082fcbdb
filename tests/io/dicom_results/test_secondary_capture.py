"""The summary picture shows the strongest findings and the notice, and no patient data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import ImageDraw

from klip_engine.detection import NOTICE
from klip_engine.io.dicom_results import DicomObject
from klip_engine.io.report_pictures import THIS_FINDING

from .cases import Case, read


@pytest.mark.parametrize("findings", [0, 1, 9])
def test_it_can_be_read_and_says_what_it_is(tmp_path: Path, case_with: Callable[..., Case], findings: int) -> None:
    path = case_with(findings=findings).write(tmp_path, [DicomObject.SC])["sc"]
    picture = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]
    np.testing.assert_array_equal(picture, read(path).pixel_array)
    outlined = (picture == np.array(THIS_FINDING, dtype=np.uint8)).all(axis=-1).any()
    assert outlined == (findings > 0)
    assert read(path).BurnedInAnnotation == "NO"


def test_what_is_written_on_it(tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    draw_text = ImageDraw.ImageDraw.text

    def note(draw: ImageDraw.ImageDraw, place: object, text: str, *rest: object, **named: object) -> None:
        written.append(text)
        draw_text(draw, place, text, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    case.write(tmp_path / "dicom", [DicomObject.SC])
    everything = " ".join(written)
    assert NOTICE in everything
    assert "Finding 1: score 9.00, p 0.01" in everything
    for secret in ("Secret", "SECRET", "1901", "2026", "ACC-77"):
        assert secret not in everything
