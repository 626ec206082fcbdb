"""`klip-engine info` on projections: what was understood, as JSON and as a picture; exit codes."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from klip_engine.io.projections import find_format, read_projections
from tests.conftest import run_cli
from tests.projections import ct_pd_writing, klip_files, test_rtk


def test_info_says_what_was_understood(tmp_path, capsys):
    scan = ct_pd_writing.write_scan(tmp_path / "scan", implicit=True, feed=16.0, turns=2)
    code, out, _ = run_cli(capsys, "info", scan, "--picture", tmp_path / "scan.png")
    said = json.loads(out)
    assert code == 0
    assert said["input"]["format"] == "DICOM-CT-PD"
    assert said["projections"]["geometry"]["source_to_isocentre_mm"] == pytest.approx(595)
    assert said["projections"]["geometry"]["source_to_detector_mm"] == pytest.approx(1085.6)
    # half the fan, from the central element to the nearer edge, seen from the source
    nearer = (ct_pd_writing.COLUMNS - ct_pd_writing.CENTRAL[0]) * ct_pd_writing.TRANSVERSE / ct_pd_writing.DISTANCE
    farther = (ct_pd_writing.CENTRAL[0] - 1) * ct_pd_writing.TRANSVERSE / ct_pd_writing.DISTANCE
    assert said["projections"]["field_of_view_mm"] == pytest.approx(2 * 595 * np.sin(farther), rel=1e-4)
    assert nearer < farther
    assert said["projections"]["detector"]["offset_columns"] == pytest.approx(-1.25)
    assert "weights and photons in air" in said["projections"]["missing"]
    assert "Doe" not in out
    with Image.open(tmp_path / "scan.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(10**6)}
    assert {(240, 173, 78), (88, 166, 255), (63, 185, 80)} <= colours


def test_a_limited_arc_sees_less(tmp_path):
    """Over a full turn the farther edge of an offset detector counts, over less the nearer one."""
    arrays, attributes = klip_files.contents()
    from klip_engine.io.projections import facts

    whole = facts(read_projections(klip_files.write(tmp_path / "whole.h5", arrays, attributes)))
    part = {k: v if k in ("/flat", "/dark") else v[:5] for k, v in arrays.items()}
    limited = facts(read_projections(klip_files.write(tmp_path / "part.h5", part, attributes)))
    assert whole["geometry"]["arc_deg"] == pytest.approx(360)
    assert limited["geometry"]["arc_deg"] == pytest.approx(200)
    for known, columns in ((whole, 5.75), (limited, 5.25)):
        assert known["field_of_view_mm"] == pytest.approx(2 * 600 * np.sin(np.arctan(columns * 4 / 1000)), rel=1e-4)


def test_refusals_leave_with_exit_code_3(tmp_path, capsys):
    path = klip_files.write(tmp_path / "scan.h5", *klip_files.contents(), quantity=None)
    code, _, err = run_cli(capsys, "info", path)
    assert code == 3
    assert "quantity" in err


def test_a_picture_of_what_has_no_rays_is_refused(tmp_path, capsys):
    (tmp_path / "volume.txt").write_text("not a scan")
    code, _, err = run_cli(capsys, "info", tmp_path / "volume.txt", "--picture", tmp_path / "p.png")
    assert code == 2
    assert "no geometry to draw" in err
    assert not (tmp_path / "p.png").exists()


@pytest.mark.parametrize("name", ["p.jpg", "p", "p.png.txt"])
def test_a_picture_is_a_png_or_is_refused(name, tmp_path, capsys):
    scan = klip_files.write(tmp_path / "scan.h5", *klip_files.contents())
    code, out, err = run_cli(capsys, "info", scan, "--picture", tmp_path / name)
    assert (code, out) == (2, "")
    assert ".png" in err
    assert [path.name for path in tmp_path.iterdir()] == ["scan.h5"]


def test_items_and_stacks_can_be_chosen(tmp_path, capsys):
    """Written without the engine: an observation file with two slices, a geometry whose images lie elsewhere."""
    with h5py.File(tmp_path / "observation.hdf5", "w") as file:
        file["data"] = np.stack([np.full((1000, 513), value, np.float32) for value in (0.01, 0.05)])
    for item, value in ((None, 0.01), (1, 0.05)):
        chosen = [] if item is None else ["--item", item]
        code, out, _ = run_cli(capsys, "info", tmp_path / "observation.hdf5", *chosen)
        said = json.loads(out)
        assert (code, said["input"]["item"]) == (0, item or 0)
        assert said["projections"]["line_integrals"] == pytest.approx([value * 81.35858] * 2, rel=1e-5)
    (tmp_path / "elsewhere").mkdir()
    geometry = test_rtk.write(tmp_path, test_rtk.expected(), test_rtk.xml())
    other = (tmp_path / "geometry.mha").rename(tmp_path / "elsewhere" / "measured.mha")
    assert run_cli(capsys, "info", geometry)[0] == 3
    code, out, _ = run_cli(capsys, "info", geometry, "--stack", other, "--picture", tmp_path / "rtk.png")
    said = json.loads(out)
    assert (code, said["input"]["stack"], said["projections"]["views"]) == (0, "measured.mha", 6)
    assert said["projections"]["beam"] == "fan"
    assert (tmp_path / "rtk.png").stat().st_size > 1000
    code, _, err = run_cli(capsys, "info", geometry, "--stack", tmp_path / "typo.mha")
    assert code == 3
    assert "no such file" in err


@pytest.mark.parametrize("command", ["info", "detect"])
@pytest.mark.parametrize(
    ("option", "value", "kind", "sentence"),
    [
        ("--item", 1, "scan.h5", "klip-projections: there is no item to choose"),
        ("--stack", "x.mha", "scan.h5", "klip-projections: there is no stack to choose"),
        ("--item", 9, "observation.hdf5", "holds items 0 to 0; item 9"),
        ("--stack", "x.mha", "observation.hdf5", "LoDoPaB-CT: there is no stack"),
        ("--item", 0, "volume.nrrd", "is no projection data: there is no item"),
    ],
)
def test_options_that_mean_nothing_are_usage_errors(tmp_path, capsys, command, option, value, kind, sentence):
    klip_files.write(tmp_path / "scan.h5", *klip_files.contents())
    with h5py.File(tmp_path / "observation.hdf5", "w") as file:
        file["data"] = np.zeros((1, 1000, 513), np.float32)
    sitk.WriteImage(sitk.Image([64, 64, 3], sitk.sitkInt16), str(tmp_path / "volume.nrrd"))
    rest = ["-o", tmp_path / "out"] if command == "detect" else []
    code, _, err = run_cli(capsys, command, tmp_path / kind, option, value, *rest)
    assert code == 2
    assert sentence in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_other_files_are_left_to_other_readers(tmp_path):
    volume = tmp_path / "volume.nrrd"
    sitk.WriteImage(sitk.Image([8, 8, 8], sitk.sitkInt16), str(volume))
    (tmp_path / "empty").mkdir()
    for path in (volume, tmp_path / "empty", tmp_path / "nothing"):
        assert find_format(path) is None
