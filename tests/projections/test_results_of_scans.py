"""What a user finds in the results of projections: what was measured, what the pictures are, what cannot be."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import SimpleITK as sitk

from klip_engine.detection import NOTICE
from klip_engine.io.measured_scan_text import views_text
from klip_engine.io.projections import write_projections
from klip_engine.working_grid import WorkingGrid
from tests.conftest import run_cli, save_wiener_prior
from tests.projections.scanner import BODY, fan_scan, turn

ISOCENTRE = (25.0, -12.0, 100.0)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    import sys

    from klip_engine import cli, pipeline

    folder = tmp_path_factory.mktemp("scan")
    prior = save_wiener_prior(folder / "prior", WorkingGrid((40, 48), 10.0, 3.0))
    scan = fan_scan(
        BODY, angles=turn(48), rows=2, beam="fan", columns=100, column_pitch=7.0, isocentre_mm=ISOCENTRE
    )
    write_projections(folder / "scan.h5", scan)
    words = ["detect", folder / "scan.h5", "-o", folder / "out", "--prior", prior, "--steps", 3, "--samples", 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "NULL_SLICES_ON_DEMAND", 4)
        patch.setenv("KLIP_CACHE", str(folder / "cache"))
        patch.setattr(sys, "argv", ["klip-engine", *map(str, words), "--progress", "none"])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert not stop.value.code
    return folder / "out"


def test_views_of_slices_at_rest_are_counted_by_turn():
    known = {"views": 720, "geometry": {"table_positions": 4}}
    assert views_text(known) == "4 turns of 180 views"
    assert views_text(known | {"geometry": {"table_positions": None}}) == "720 views"
    assert views_text(known | {"views": 721}) == "721 views"


def test_the_report_says_what_was_measured(out):
    report = (out / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", " ", report)
    assert text.count(NOTICE) == 2
    assert "What was measured" in text
    assert "fan beam, cylindrical detector, 48 views over 360 degrees" in text
    assert "source to axis 595.0 mm, source to detector 1085.6 mm" in text
    assert "1e+06 photons a ray in air" in text
    captions = re.findall(r"<figcaption>([^<]+)</figcaption>", report)
    assert captions[0] == "Filtered back-projection"
    assert "Input" not in captions
    assert "the image as given" not in text


def test_the_document_and_the_volumes_lie_in_the_patient(out):
    document = json.loads((out / "findings.json").read_text())
    assert document["input"]["projections"]["views"] == 48
    assert document["input"]["projections"]["dose"]["photons_in_air"] == 1e6
    for name in ("reconstruction", "klip", "regions"):
        image = sitk.ReadImage(str(out / f"{name}.nrrd"))
        middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
        assert np.allclose(middle, ISOCENTRE, atol=1.0)


def test_dicom_says_why_not(capsys, out, tmp_path):
    code, _, error = run_cli(capsys, "export", out, "-o", tmp_path / "dicom", "--source", tmp_path)
    assert code == 3
    assert "result of CT projections, which no DICOM series belongs to" in " ".join(error.split())
    assert not (tmp_path / "dicom").exists()
