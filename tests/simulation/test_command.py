"""`klip-engine simulate`: from a volume file to projections of every format, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk

from klip_engine.detection import NOTICE
from klip_engine.io.projections import read_projections
from klip_engine.scans import reconstruct, to_slices
from klip_engine.volume import Geometry
from tests.conftest import run_cli
from tests.simulation.conftest import body

COARSE = ["--views", 40, "--detector-bins", 100, "--sub-rays", 1, "--pixel-mm", 4, "--progress", "json"]
FAN, PARALLEL = ["--bin-mm", 5.1], ["--bin-mm", 2.8, "--geometry", "parallel"]


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "body.nrrd"
    sitk.WriteImage(body(2).geometry.image(body(2).hu.astype(np.int16)), str(path))
    return path


def test_from_a_volume_to_a_file_and_what_info_says(volume, tmp_path, capsys):
    out = tmp_path / "scan.h5"
    code, printed, _ = run_cli(capsys, "simulate", volume, "-o", out, *COARSE, *FAN, "--dose", "low", "--kvp", 120)
    events = [json.loads(line) for line in printed.splitlines()]
    assert code == 0
    assert events[0]["event"] == "start"
    assert events[-1]["event"] == "done"
    assert events[-1]["views"] == 80
    assert any(event["event"] == "progress" for event in events)
    picture = tmp_path / "scan.png"
    code, printed, _ = run_cli(capsys, "info", out, "--picture", picture)
    said = json.loads(printed)
    assert code == 0
    assert said["input"]["provenance"]["simulation"]["kvp"] == 120
    assert said["projections"]["dose"]["photons_in_air"] == 2.5e5
    assert said["projections"]["missing"] == []
    assert said["projections"]["geometry"]["table_positions"] == 2
    assert said["projections"]["geometry"]["arc_deg"] == 360
    assert picture.stat().st_size > 0
    assert "body" not in json.dumps(said["input"]["provenance"])


def test_people_are_told_that_it_is_research_software(volume, tmp_path, capsys):
    quiet = [*COARSE[:-1], "rich"]
    code, out, err = run_cli(capsys, "simulate", volume, "-o", tmp_path / "s.h5", *quiet, *FAN, "--slices", "0:1")
    assert code == 0
    said = " ".join((out + err).split())
    assert "40 views of 1 x 100 elements" in said
    assert " ".join(NOTICE.split()) in said


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("scan.h5", FAN),
        ("scan.h5", [*FAN, "--geometry", "fan-flat", "--offset-bins", 0.25]),
        ("scan.h5", PARALLEL),
        ("folder", [*FAN, "--slices", "0:1"]),
        ("folder", [*FAN, "--geometry", "fan-flat"]),
        ("folder", [*FAN, "--geometry", "helical", "--detector-rows", 4, "--row-mm", 6, "--views", 40]),
        ("scan.mat", [*FAN, "--geometry", "fan-flat", "--slices", "0:1"]),
        ("scan.xml", [*FAN, "--geometry", "fan-flat"]),
        ("scan.xml", FAN),
    ],
)
def test_every_format_gives_the_scan_back(name, options, volume, tmp_path, capsys):
    """As the file with nothing lost: the same line integrals along the same rays, and the same picture."""
    exact, out = tmp_path / "exact.h5", tmp_path / name
    for path, extra in ((exact, ["--format", "klip"]), (out, [])):
        code, printed, _ = run_cli(capsys, "simulate", volume, "-o", path, *COARSE, *options, *extra)
        assert code == 0, printed
    ours, theirs = read_projections(exact), read_projections(out)
    assert theirs.line_integrals.shape == ours.line_integrals.shape
    first, second = to_slices(ours), to_slices(theirs)
    pictures = [reconstruct(slices, ours.volume_hint) for slices in (first, second)]
    if theirs.isocentre_mm == pytest.approx(ours.isocentre_mm):
        assert np.abs(pictures[0].hu - pictures[1].hu).mean() < 2


def test_the_scanner_of_lodopab(tmp_path, capsys):
    path, out = tmp_path / "disc.nrrd", tmp_path / "scan.hdf5"
    hu = np.full((1, 32, 32), -1000, np.int16)
    hu[:, 8:24, 8:24] = 0
    sitk.WriteImage(Geometry((32, 32, 1), (8.0, 8.0, 5.0)).image(hu), str(path))
    scanner = ["--geometry", "parallel", "--views", 1000, "--start", 0.09, "--detector-bins", 513]
    scanner += ["--bin-mm", 0.716755, "--dose", "lodopab", "--sub-rays", 1, "--pixel-mm", 8]
    code, out_text, err = run_cli(capsys, "simulate", path, "-o", out, "--format", "lodopab", *scanner)
    assert code == 0, out_text + err
    scan = read_projections(out)
    assert scan.line_integrals.shape == (1000, 1, 513)
    assert scan.line_integrals[:, 0, 256].mean() == pytest.approx(0.02 * 8 * 16 * 1.15, rel=0.1)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--arc", 3], 2, "arc of 3 degrees"),
        (["--slices", "3"], 2, "no range of slices"),
        (["--slices", "\u00b2:3"], 2, "no range of slices"),
        (["--slices", "1:2:3"], 2, "no range of slices"),
        (["--slices", "1:7"], 2, "has 2 axial slices"),
        (["--dead-pixels", 1.5], 2, "from 0 to 1"),
        (["--offset-bins", 150], 2, "sees nothing"),
        (["--format", "dicom"], 2, "no format 'dicom'"),
    ],
)
def test_nonsense_is_refused_and_nothing_is_written(options, code, words, volume, tmp_path, capsys):
    out = tmp_path / "scan.h5"
    got, printed, _ = run_cli(capsys, "simulate", volume, "-o", out, *COARSE, *FAN, *options)
    assert got == code
    assert words in json.loads(printed.splitlines()[-1])["message"]
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("scan.h5", ["--format", "lodopab", *PARALLEL], "LoDoPaB-CT cannot hold this scan"),
        ("scan.mat", FAN, "a cylindrical detector with 1 row"),
        ("scan.mat", [*FAN, "--geometry", "fan-flat"], "it holds one slice"),
        ("scan", PARALLEL, "it is a parallel beam"),
        ("scan.data", [*FAN, "--format", "rtk"], "end it in .xml"),
        ("taken", FAN, "is not empty"),
        ("taken", [*FAN, "--format", "klip"], "is a folder"),
        ("taken/body.nrrd/scan.h5", FAN, "nothing can be written"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_projected(
    name, options, words, volume, tmp_path, capsys
):
    (tmp_path / "taken").mkdir()
    volume.rename(tmp_path / "taken" / "body.nrrd")
    code, printed, _ = run_cli(
        capsys, "simulate", tmp_path / "taken" / "body.nrrd", "-o", tmp_path / name, *COARSE, *options
    )
    events = [json.loads(line) for line in printed.splitlines()]
    assert code == 2
    assert words in events[-1]["message"]
    assert all(event["event"] != "progress" for event in events)
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "body.nrrd"]


def test_a_truncated_scan_is_said_before_it_is_projected(volume, tmp_path, capsys):
    code, printed, _ = run_cli(capsys, "simulate", volume, "-o", tmp_path / "s.h5", *COARSE, "--bin-mm", 2)
    events = [json.loads(line) for line in printed.splitlines()]
    kinds = [event["event"] for event in events]
    assert code == 0
    assert kinds.index("warning") < kinds.index("progress")
    assert "the scan is truncated" in events[kinds.index("warning")]["message"]


def test_what_would_be_lost_is_refused_before_the_scan_is_made(volume, tmp_path, capsys):
    """The volume itself, and folders that hold something."""
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("kept")
    before = volume.read_bytes()
    for out, extra, words in (
        (volume, ["--format", "klip"], "is the volume itself"),
        (full, [], "is not empty"),
        (full, ["--format", "klip"], "is a folder"),
    ):
        code, printed, _ = run_cli(capsys, "simulate", volume, "-o", out, *COARSE, *FAN, *extra)
        events = [json.loads(line) for line in printed.splitlines()]
        assert (code, [event["event"] for event in events if event["event"] != "start"]) == (2, ["error"])
        assert words in events[-1]["message"]
    assert volume.read_bytes() == before
    assert [path.name for path in full.iterdir()] == ["notes.txt"]


def test_what_is_no_ct_is_refused(tmp_path, capsys):
    path = tmp_path / "noise.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.full((2, 40, 40), 30000, np.int32)), str(path))
    got, printed, _ = run_cli(capsys, "simulate", path, "-o", tmp_path / "s.h5", *COARSE)
    assert got == 3
    assert not (tmp_path / "s.h5").exists()
    assert json.loads(printed.splitlines()[-1])["event"] == "error"
