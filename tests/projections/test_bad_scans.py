"""Every format, spoilt in every way it allows: exit code 3 through the command line, a sentence of its own."""

from __future__ import annotations

import re

import numpy as np
import pytest

from klip_engine.io.projections import write_projections
from klip_engine.working_grid import WorkingGrid
from tests.conftest import run_cli, save_wiener_prior
from tests.projections import ct_pd_writing, klip_files, test_public_data_sets, test_rtk
from tests.projections.scanner import BODY, fan_scan, turn

VIEWS = 12


def klip(folder, defect):
    arrays, attributes = klip_files.contents()
    quantity = None if defect == "no unit" else "counts"
    if defect == "shape":
        arrays["/projections"] = arrays["/projections"][:-2]
    elif defect == "nan":
        arrays["/projections"][4, 1, 7] = np.nan
    elif defect == "angles":
        for name in ("source_mm", "det_center_mm", "det_u", "det_v"):
            arrays[f"/geometry/{name}"][5] = arrays[f"/geometry/{name}"][4]
    elif defect == "geometry":
        del arrays["/geometry/source_mm"]
    path = klip_files.write(folder / "scan.h5", arrays, attributes, quantity)
    if defect == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    return path


def ct_pd(folder, defect):
    scan = ct_pd_writing.write_scan(folder / "scan", views=VIEWS, implicit=False)
    victim = sorted(scan.iterdir())[3]
    view = next(i for i in range(VIEWS) if victim.name == f"{(i * 7919) % 10007:05d}.dcm")
    if defect == "truncated":
        victim.write_bytes(victim.read_bytes()[:-40])
        return scan
    more = {
        "shape": {"change": {0x70291010: ("US", 5)}},
        "no unit": {"change": {0x70391009: ("CS", "NO")}},
        "nan": {"change": {0x70311003: ("FL", float("nan"))}},
        "angles": {"change": {0x70311001: ("FL", ct_pd_writing.pose(view - 1, VIEWS, 0.0)[0])}},
        "geometry": {"without": [0x70311031]},
    }[defect]
    for number, path in enumerate(sorted(scan.iterdir())):
        if path == victim or defect != "angles":
            number = next(i for i in range(VIEWS) if path.name == f"{(i * 7919) % 10007:05d}.dcm")
            ct_pd_writing.write_view(path, number, VIEWS, implicit=False, **more)
    return scan


def fips(folder, defect):
    angles = np.arange(0, 90, 10.0)
    sinogram, parameters = test_public_data_sets.htc_sinogram(angles), test_public_data_sets.htc_parameters(angles)
    if defect == "shape":
        sinogram = sinogram[:-1]
    elif defect == "nan":
        sinogram[2, 3] = np.nan
    elif defect == "angles":
        parameters["angles"] = angles[None][:, [0, 1, 3, 2, 4, 5, 6, 7, 8]]
    elif defect == "geometry":
        del parameters["distanceSourceOrigin"]
    path = test_public_data_sets.write_v5(folder / "scan.mat", angles, sinogram=sinogram, parameters=parameters)
    if defect == "truncated":
        path.write_bytes(path.read_bytes()[:-300])
    return path


def lodopab(folder, defect):
    shape = (1000, 500) if defect == "shape" else (1000, 513)
    largest = {"no unit": 5.0, "nan": np.nan}.get(defect)
    path = test_public_data_sets.write_lodopab(folder / "scan.hdf5", 1, shape, largest)
    if defect == "truncated":
        path.write_bytes(path.read_bytes()[:-5000])
    return path


def rtk(folder, defect):
    values = test_rtk.expected().astype(np.float32)
    views = [dict(view) for view in test_rtk.VIEWS]
    if defect == "shape":
        values = values[:-1]
    elif defect == "nan":
        values[2, 1, 4] = np.nan
    elif defect == "angles":
        views[3] = dict(views[2])
    text = test_rtk.xml(views)
    if defect == "geometry":
        text = text.replace("<SourceToIsocenterDistance>600.0</SourceToIsocenterDistance>", "")
    path = test_rtk.write(folder, values, text)
    if defect == "truncated":
        stack = path.with_suffix(".mha")
        stack.write_bytes(stack.read_bytes()[:-100])
    return path


FORMATS = {"klip": klip, "CT-PD": ct_pd, "FIPS": fips, "LoDoPaB": lodopab, "RTK": rtk}
SENTENCES = {
    ("klip", "truncated"): "truncated|damaged",
    ("klip", "no unit"): "unit of /projections .* is missing",
    ("klip", "shape"): r"are \[7, 2, 12\], but their geometry describes \[9, 2, 12\]",
    ("klip", "nan"): "NaN .* view 4, row 1, column 7",
    ("klip", "angles"): "taken from the same place",
    ("klip", "geometry"): "lacks source_mm",
    ("CT-PD", "truncated"): "truncated|damaged|holds fewer",
    ("CT-PD", "no unit"): "logarithm",
    ("CT-PD", "shape"): "40 x 4|5",
    ("CT-PD", "nan"): "not a number|no number|finite",
    ("CT-PD", "angles"): "do not turn one way",
    ("CT-PD", "geometry"): "7031,1031",
    ("FIPS", "truncated"): "truncated",
    ("FIPS", "shape"): "names? 9 angles",
    ("FIPS", "nan"): "view 2, row 0, column 3",
    ("FIPS", "angles"): "do not turn one way",
    ("FIPS", "geometry"): "lack distanceSourceOrigin",
    ("LoDoPaB", "truncated"): "truncated|damaged",
    ("LoDoPaB", "no unit"): "no LoDoPaB-CT observation",
    ("LoDoPaB", "shape"): r"\[1, 1000, 500\]",
    ("LoDoPaB", "nan"): "NaN|not finite|no LoDoPaB-CT observation",
    ("RTK", "truncated"): "truncated",
    ("RTK", "shape"): "5 .*6|6 .*5",
    ("RTK", "nan"): "NaN .* view 2, row 1, column 4",
    ("RTK", "angles"): "taken from the same place",
    ("RTK", "geometry"): "SourceToIsocenterDistance",
}
"""What each format can get wrong: FIPS and RTK have no units, LoDoPaB no geometry and no angles of its own."""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    return {}


@pytest.mark.parametrize(("name", "defect"), SENTENCES, ids=[" ".join(case) for case in SENTENCES])
def test_a_spoilt_scan_is_bad_input(capsys, tmp_path, said, name, defect):
    code, out, error = run_cli(capsys, "info", FORMATS[name](tmp_path, defect))
    assert code == 3, (out, error)
    assert out == ""
    sentence = error.strip()
    assert sentence.startswith("klip-engine: ")
    assert len(sentence.splitlines()) == 1
    assert "unexpected" not in sentence
    assert "scan" in sentence or "geometry" in sentence  # the file's name
    assert "Doe" not in sentence
    assert re.search(SENTENCES[name, defect], sentence), sentence
    plain = sentence.replace(str(tmp_path), "")
    assert plain not in {other for (format_, _), other in said.items() if format_ == name}
    said[name, defect] = plain


@pytest.mark.parametrize("name", ["klip", "CT-PD", "RTK"])
def test_a_cone_beam_of_any_format_is_refused_with_the_way_out(capsys, tmp_path, name):
    """FIPS and LoDoPaB hold single slices."""
    if name == "klip":
        path = tmp_path / "scan.h5"
        write_projections(path, fan_scan(BODY, angles=turn(24), rows=200, columns=30))
    elif name == "CT-PD":
        high = {"change": {0x70291006: ("FL", 60.0)}}
        path = ct_pd_writing.write_scan(tmp_path / "scan", views=VIEWS, implicit=True, **high)
    else:
        upright = [{"GantryAngle": 30.0 * i} for i in range(VIEWS)]
        values = np.zeros((VIEWS, 40, 30), np.float32)
        path = test_rtk.write(tmp_path, values, test_rtk.xml(upright))
    prior = save_wiener_prior(tmp_path / "prior", WorkingGrid((40, 48), 10.0, 3.0))
    code, _, error = run_cli(capsys, "detect", path, "-o", tmp_path / "out", "--prior", prior, "--progress", "none")
    assert code == 3, error
    assert "cone" in error
    assert "volume" in error
    assert not (tmp_path / "out").exists()


def test_the_spoilt_files_are_good_before_they_are_spoilt(capsys, tmp_path):
    """Else the defect would not be what is refused."""
    arrays, attributes = klip_files.contents()
    (tmp_path / "rtk").mkdir()
    paths = [
        klip_files.write(tmp_path / "scan.h5", arrays, attributes),
        ct_pd_writing.write_scan(tmp_path / "scan", views=VIEWS, implicit=False),
        test_public_data_sets.write_v5(tmp_path / "scan.mat", np.arange(0, 90, 10.0)),
        test_public_data_sets.write_lodopab(tmp_path / "scan.hdf5", 1),
        test_rtk.write(tmp_path / "rtk", test_rtk.expected(), test_rtk.xml()),
    ]
    for path in paths:
        code, _, error = run_cli(capsys, "info", path)
        assert code == 0, error
