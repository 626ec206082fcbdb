"""`detect --dicom` and `export`: the same objects both ways, at any rate of false alarms, and clear refusals."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from klip_engine.detection import NOTICE
from klip_engine.io import read_ct
from klip_engine.volume import Geometry
from tests.conftest import run_cli, torso
from tests.io.dicom_files import straight_positions, write_series
from tests.io.dicom_results.cases import SERIES, complete_header
from tests.pipeline.conftest import WIDE_BLOCKS

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torso with a bright insert, stored from head to feet."""
    hu = torso(4).clip(-1024)
    hu[2, 46:50, 58:62] = 1800
    folder = tmp_path_factory.mktemp("dicom") / "series"
    positions = straight_positions(4, 5.0, AXIAL)
    write_series(folder, hu[::-1], positions[::-1], pixel_mm=(4.0, 4.0), series=SERIES, edit=complete_header)
    return folder


@pytest.fixture
def detect(capsys, prior, series, tmp_path) -> Callable[..., Path]:
    def run(name: str, *arguments: object) -> Path:
        settings = tmp_path / "settings.json"
        settings.write_text(json.dumps(WIDE_BLOCKS.to_dict()))
        out = tmp_path / name
        options = ["--prior", prior, "--settings", settings, "--progress", "none", "--device", "cpu"]
        code, _, error = run_cli(capsys, "detect", series, "-o", out, *options, *arguments)
        assert code == 0, error
        return out

    return run


def test_both_ways_give_the_same_objects(capsys, detect, series, tmp_path):
    out = detect("out", "--dicom", "all,labelmap")
    made = {path.name: path.read_bytes() for path in (out / "dicom").iterdir()}
    assert set(made) == {"seg.dcm", "sr.dcm", "pm.dcm", "sc.dcm", "labelmap.dcm"}
    exported = tmp_path / "exported"
    arguments = ["--source", series, "--labelmap", "--progress", "json"]
    code, printed, error = run_cli(capsys, "export", out, "-o", exported, *arguments)
    assert code == 0, error
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == made
    done = json.loads(printed.splitlines()[-1])
    assert done["event"] == "done"
    assert {Path(file).name for file in done["files"]} == set(made)
    again = detect("out", "--dicom", "seg")
    assert [path.name for path in (again / "dicom").iterdir()] == ["seg.dcm"]
    assert (again / "dicom" / "seg.dcm").read_bytes() == made["seg.dcm"]


def test_export_at_another_rate_is_what_a_run_with_it_writes(capsys, detect, series, tmp_path):
    strict, loose = detect("strict", "--dicom", "all"), detect("loose", "--false-alarms", 0.5, "--dicom", "all")
    exported = tmp_path / "exported"
    code, _, error = run_cli(
        capsys, "export", strict, "-o", exported, "--source", series, "--false-alarms", 0.5, "--progress", "none"
    )
    assert code == 0, error
    names = sorted(path.name for path in exported.iterdir())
    assert names == sorted(path.name for path in (loose / "dicom").iterdir())
    for name in names:
        assert (exported / name).read_bytes() == (loose / "dicom" / name).read_bytes(), name
        assert (exported / name).read_bytes() != (strict / "dicom" / name).read_bytes(), name


def test_the_insert_is_marked_where_it_is(detect, series):
    dataset = pydicom.dcmread(detect("out", "--dicom", "seg") / "dicom" / "seg.dcm")
    frames = dataset.pixel_array.reshape(-1, 96, 120)
    heights = [
        float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
        for frame in dataset.PerFrameFunctionalGroupsSequence
    ]
    place = straight_positions(4, 5.0, AXIAL)[2][2]
    assert any(np.isclose(z, place) and plane[48, 60] for z, plane in zip(heights, frames, strict=True))


def test_export_says_what_the_result_is(capsys, detect, series, tmp_path):
    out = detect("out")
    code, printed, _ = run_cli(capsys, "export", out, "-o", tmp_path / "x", "--source", series, "--objects", "sr")
    assert code == 0
    assert "2 DICOM objects written" in printed
    assert "seg.dcm, sr.dcm" in printed  # a report brings the segmentation it refers to
    assert NOTICE in " ".join(printed.split())


def test_only_dicom_input_gives_dicom_results(capsys, prior, tmp_path):
    path = tmp_path / "ct.nrrd"
    sitk.WriteImage(Geometry((120, 96, 4), (4.0, 4.0, 5.0)).image(torso(4).astype(np.int16)), path)
    code, _, error = run_cli(
        capsys, "detect", path, "-o", tmp_path / "out", "--prior", prior, "--dicom", "all", "--progress", "none"
    )
    assert code == 2
    assert "this input is not DICOM" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", ["seg,foto", "", "all,"])
def test_an_object_that_does_not_exist_is_named_before_anything_runs(capsys, series, prior, tmp_path, words):
    code, _, error = run_cli(
        capsys, "detect", series, "-o", tmp_path / "out", "--prior", prior, "--dicom", words, "--progress", "none"
    )
    assert code == 2
    assert "there is no DICOM object" in error


def test_without_highdicom_the_cure_is_said(capsys, series, prior, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom.sr", None)
    code, _, error = run_cli(
        capsys, "detect", series, "-o", tmp_path / "out", "--prior", prior, "--dicom", "all", "--progress", "none"
    )
    assert code == 2
    assert "extra 'dicom'" in error


def test_export_refuses_what_does_not_belong_together(capsys, detect, series, tmp_path):
    out = detect("out")

    def refusal(*arguments: object) -> str:
        code, _, error = run_cli(capsys, "export", *arguments, "-o", tmp_path / "x", "--progress", "none")
        assert code in (2, 3)
        assert not (tmp_path / "x").exists()
        return error

    other = tmp_path / "other"
    write_series(other, torso(4).clip(-1024), straight_positions(4, 5.0, AXIAL), pixel_mm=(4.0, 4.0))
    assert "holds no CT series" in refusal(out, "--source", other)
    assert "holds no results" in refusal(tmp_path, "--source", series)
    assert "between 0 and 1" in refusal(out, "--source", series, "--false-alarms", 7)
    assert "no such file or folder" in refusal(out, "--source", tmp_path / "nowhere")
    assert "there is no DICOM object 'xyz'" in refusal(out, "--source", series, "--objects", "xyz")


def test_results_of_a_volume_file_refer_to_the_series_it_came_from_and_to_no_other(capsys, prior, series, tmp_path):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(WIDE_BLOCKS.to_dict()))
    volume = read_ct(series).volume
    file, out = tmp_path / "volume.nrrd", tmp_path / "out"
    sitk.WriteImage(volume.geometry.image(volume.hu.astype(np.int16)), file)
    quiet = ["--progress", "none"]
    code, _, error = run_cli(capsys, "detect", file, "-o", out, "--prior", prior, "--settings", settings, *quiet)
    assert code == 0, error
    code, _, error = run_cli(capsys, "export", out, "-o", tmp_path / "x", "--source", series, *quiet)
    assert code == 0, error
    segmentation = pydicom.dcmread(tmp_path / "x" / "seg.dcm")
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES
    other = tmp_path / "other"  # the same patient's grid, one slice 1 HU brighter
    hu = volume.hu.copy()
    hu[1] += 1
    write_series(other, hu, straight_positions(4, 5.0, AXIAL), pixel_mm=(4.0, 4.0), edit=complete_header)
    code, _, error = run_cli(capsys, "export", out, "-o", tmp_path / "y", "--source", other, *quiet)
    assert code == 3
    assert "does not hold the same HU" in error
    assert not (tmp_path / "y").exists()
