"""Which format a scan is written in, what is there afterwards, and `info` on every format that was written."""

from __future__ import annotations

import errno
import json
from dataclasses import replace

import numpy as np
import pytest

from klip_engine.errors import ResourceError, UsageError
from klip_engine.io.projections import FORMATS, find_format, read_projections, write_projections
from klip_engine.io.projections.circular import parallel_circle
from klip_engine.projections import Detector, Projections
from tests.conftest import run_cli
from tests.projections.scanner import fan_scan, turn

FAN = fan_scan(angles=turn(8), shape="flat", columns=30, column_pitch=20.0, central_column=14.5)
OBSERVATION = Projections(
    np.ones((1000, 1, 513), np.float32),
    parallel_circle((np.arange(1000) + 0.5) * np.pi / 1000),
    Detector("flat", 513, 1, 260 * 2**0.5 / 513, 1.0, (256.0, 0.0)),
    "parallel",
    0.02,
)


@pytest.mark.parametrize(
    ("name", "format", "found"),
    [
        ("scan.h5", None, "klip-projections"),
        ("scan.HDF5", None, "klip-projections"),
        ("scan.mat", None, "FIPS .mat"),
        ("scan.xml", None, "RTK geometry"),
        ("scan", None, "DICOM-CT-PD"),
        ("scan.data", "klip", "klip-projections"),
        ("scan.data", "FIPS", "FIPS .mat"),
        ("scan.v2", "ct-pd", "DICOM-CT-PD"),
        ("scan.v2", "DICOM-CT-PD", "DICOM-CT-PD"),
        ("scan.h5", "lodopab", "LoDoPaB-CT"),
        ("scan.xml", "rtk", "RTK geometry"),
    ],
)
def test_by_name_or_by_suffix(tmp_path, capsys, name, format, found):
    write_projections(tmp_path / name, OBSERVATION if format == "lodopab" else FAN, format)
    assert find_format(tmp_path / name).name == found
    code, out, _ = run_cli(capsys, "info", tmp_path / name, "--picture", tmp_path / "p.png")
    said = json.loads(out)
    assert code == 0
    assert said["projections"]["views"] == (1000 if format == "lodopab" else 8)
    if format != "lodopab":
        assert said["projections"]["geometry"]["source_to_isocentre_mm"] == pytest.approx(595, abs=1e-3)
        assert said["projections"]["field_of_view_mm"] == pytest.approx(
            2 * 595 * np.sin(np.arctan(14.5 * 20 / 1085.6)), rel=1e-5
        )


def test_every_format_can_be_written():
    assert all(known.write is not None for known in FORMATS)
    assert len({known.short for known in FORMATS}) == len(FORMATS)


@pytest.mark.parametrize(
    ("name", "format", "sentence"),
    [
        ("scan.nrrd", None, "does not say its format: .*klip, ct-pd, fips, lodopab, rtk"),
        ("scan.h5", "dicom", "no format 'dicom' to write; choose one of klip, ct-pd"),
    ],
)
def test_unknown_formats(tmp_path, name, format, sentence):
    with pytest.raises(UsageError, match=sentence):
        write_projections(tmp_path / name, FAN, format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["scan.h5", "scan.mat", "scan.xml"])
def test_an_earlier_file_is_replaced_or_stays(tmp_path, name):
    """Replaced by a scan that can be written; untouched where the new one cannot."""
    write_projections(tmp_path / name, FAN)
    twice = replace(FAN, line_integrals=2 * FAN.line_integrals)
    write_projections(tmp_path / name, twice)
    assert read_projections(tmp_path / name).line_integrals.max() == twice.line_integrals.max()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    unwritable = {"scan.mat": OBSERVATION, "scan.xml": _sheared()}.get(name)
    if unwritable is not None:
        with pytest.raises(UsageError):
            write_projections(tmp_path / name, unwritable)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("scan", "pydicom.dataset.Dataset.save_as"),
        ("scan.mat", "scipy.io.savemat"),
        ("scan.xml", "klip_engine.io.projections.rtk_writing._write_stack"),
        ("observation.hdf5", "h5py.Group.create_dataset"),
    ],
)
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, name, broken):
    def full(*given, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    made, format = (OBSERVATION, "lodopab") if name.startswith("observation") else (FAN, None)
    monkeypatch.setattr(broken, full)
    with pytest.raises(ResourceError, match="full"):
        write_projections(tmp_path / name, made, format)
    assert list(tmp_path.iterdir()) == []


def _sheared():
    path = OBSERVATION.trajectory
    leaning = (path.ray_direction + path.det_u) / 2**0.5
    return replace(OBSERVATION, trajectory=replace(path, ray_direction=leaning))
