"""A scan that contradicts its geometry, as a user meets it: refused before any sampling, or taken on request."""

from __future__ import annotations

import dataclasses
import json
import warnings

import pytest

from klip_engine.errors import InputError
from klip_engine.io.projections import write_projections
from klip_engine.pipeline import detect
from klip_engine.working_grid import WorkingGrid
from tests.conftest import run_cli, save_wiener_prior
from tests.projections.scanner import BODY, fan_scan, turn


@pytest.fixture(autouse=True)
def coarse_null(monkeypatch):
    """What is usual is of no interest here."""
    monkeypatch.setattr("klip_engine.pipeline.NULL_SLICES_ON_DEMAND", 4)


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return save_wiener_prior(tmp_path_factory.mktemp("prior") / "wiener", WorkingGrid((40, 48), 10.0, 3.0))


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """Columns counted the other way than det_u says."""
    scan = fan_scan(BODY, angles=turn(72), columns=140, column_pitch=5.0)
    return dataclasses.replace(scan, line_integrals=scan.line_integrals[..., ::-1].copy())


@pytest.fixture(scope="module")
def shifted(tmp_path_factory):
    """A central element two columns off: an image, but a doubtful one."""
    scan = fan_scan(BODY, angles=turn(72), columns=140, column_pitch=5.0)
    column, row = scan.detector.central_element
    return dataclasses.replace(scan, detector=dataclasses.replace(scan.detector, central_element=(column + 2, row)))


def arguments(scan, prior, folder):
    write_projections(folder / "scan.h5", scan)
    return ["detect", folder / "scan.h5", "-o", folder / "out", "--prior", prior, "--steps", 4, "--samples", 1]


def test_the_command_refuses_it_and_takes_it_on_request(capsys, mirrored, prior, tmp_path):
    common = arguments(mirrored, prior, tmp_path)
    code, printed, error = run_cli(capsys, *common, "--progress", "json")
    assert code == 3
    events = [json.loads(line) for line in printed.splitlines()]
    assert [event["event"] for event in events] == ["start", "error"]
    for part in ("scan.h5 contradicts its own geometry", "mirrored detector", "order and sign", "--trust-geometry"):
        assert part in error
    assert not (tmp_path / "out").exists()
    code, printed, error = run_cli(capsys, *common, "--progress", "json", "--trust-geometry")
    assert code == 0, error
    kinds = [json.loads(line)["event"] for line in printed.splitlines()]
    assert kinds[:3] == ["start", "warning", "warning"]
    notices = json.loads((tmp_path / "out" / "findings.json").read_text())["notices"]
    assert any("trusted against the data" in notice for notice in notices)
    assert any("mirrored detector" in notice for notice in notices)


@pytest.mark.parametrize("style", ["rich", "json", "none"])
def test_a_doubt_is_said_first_and_again_with_the_result(capsys, shifted, prior, tmp_path, style):
    code, printed, error = run_cli(capsys, *arguments(shifted, prior, tmp_path), "--progress", style)
    assert code == 0, error
    if style == "json":
        events = [json.loads(line) for line in printed.splitlines()]
        assert [event["event"] for event in events[:2]] == ["start", "warning"]
        assert "shifted by about" in events[1]["message"]
    else:
        before = {"rich": "Warning: ", "none": "klip-engine: warning: "}[style]
        assert f"{before}The projections fit a detector shifted" in error
    notices = json.loads((tmp_path / "out" / "findings.json").read_text())["notices"]
    assert any("shifted by about" in notice for notice in notices)


def test_python_warns(mirrored, shifted, prior):
    said = []
    with pytest.raises(InputError, match="this scan contradicts its own geometry"):
        detect(mirrored, prior, steps=4, samples=1, warn=said.append)
    assert said == []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detect(shifted, prior, steps=4, samples=1)
    assert any("shifted by about" in str(one.message) for one in caught)


def test_info_says_it_without_a_prior(capsys, mirrored, shifted, tmp_path):
    cone = fan_scan(BODY, angles=turn(24), rows=200, columns=30)
    for name, scan, refusal in (("m", mirrored, "mirrored"), ("s", shifted, None), ("c", cone, "cone beam")):
        write_projections(tmp_path / f"{name}.h5", scan)
        code, out, error = run_cli(capsys, "info", tmp_path / f"{name}.h5")
        assert code == 0, error
        said = json.loads(out)
        assert (said["detect_refuses"] is None) == (refusal is None)
        assert refusal is None or refusal in said["detect_refuses"]
        if name == "s":
            assert any("shifted by about" in notice for notice in said["notices"])
