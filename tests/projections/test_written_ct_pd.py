"""DICOM-CT-PD as written: the tags against an independent writer, the rays they describe against closed forms."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from klip_engine.errors import UsageError
from klip_engine.io.projections import read_projections, write_projections
from tests.projections import ct_pd_writing as independent
from tests.projections.scanner import BODY, MU_WATER, ellipsoid_integrals, fan_scan, parallel_scan, turn

RAYS_MM = 5e-4
"""Angles and places have 32 bits in the files."""


def scan(views=12, turns=1.0, feed=0.0, flying=False, rows=3, **more):
    angles = turn(views, 40.0, turns)
    flight = (-1.0) ** np.arange(len(angles))
    spot = {"spot_angle": 0.003 * flight, "spot_z": 0.6 * flight, "spot_radius": 0.4 * flight} if flying else {}
    table = feed * np.arange(len(angles)) / views
    return fan_scan(angles=angles, rows=rows, columns=60, column_pitch=11.0, table_z=table, **spot, **more)


def datasets(folder):
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def measured(dataset):
    """Line integrals [rows, columns]: in public data sets the image's rows are the detector's columns."""
    return (dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)).T


def rays_of(dataset):
    """Spot [3] and elements [rows, columns, 3] in LPS by the published formulas, from one file's tags alone."""
    phi, z, rho = (dataset[0x7031, element].value for element in (0x1001, 0x1002, 0x1003))
    d_phi, d_z, d_rho = (dataset[0x7033, element].value for element in (0x100B, 0x100C, 0x100D))
    distance, (column, row) = dataset[0x7031, 0x1031].value, dataset[0x7031, 0x1033].value
    rows, columns = dataset[0x7029, 0x1010].value, dataset[0x7029, 0x1011].value
    across = (np.arange(1, columns + 1) - column) * dataset[0x7029, 0x1002].value
    height = z - (np.arange(1, rows + 1) - row) * dataset[0x7029, 0x1006].value
    focal = np.array([-rho * np.sin(phi), rho * np.cos(phi)])
    if dataset[0x7029, 0x100B].value == "FLAT":
        in_plane = focal + distance * np.array([np.sin(phi), -np.cos(phi)])
        in_plane = in_plane + across[:, None] * np.array([np.cos(phi), np.sin(phi)])
    else:
        fan = phi + across / distance
        in_plane = focal + distance * np.stack([np.sin(fan), -np.cos(fan)], axis=-1)
    elements = np.empty((rows, columns, 3))
    elements[..., :2], elements[..., 2] = in_plane, height[:, None]
    spot = np.array([-(rho + d_rho) * np.sin(phi + d_phi), (rho + d_rho) * np.cos(phi + d_phi), z + d_z])
    to_lps = np.array(independent.LEFT_BACK_HEAD[dataset.PatientPosition], float)
    return spot @ to_lps.T, elements @ to_lps.T


@pytest.mark.parametrize(
    "made",
    [
        scan(),
        scan(rows=1, shape="flat", central_column=22.25),
        scan(feed=20.0, turns=1.5, flying=True, beam="fan"),
        scan(shape="flat", flying=True),
        scan(mirrored=True, upside_down=True, central_column=25.5),
        scan(turns=0.6),
        fan_scan(angles=-(turn(12) ** 1.3), columns=60, column_pitch=11.0, rows=2),
    ],
    ids=[
        "axial",
        "flat offset",
        "helix flying spot",
        "flat flying spot",
        "counted the other way",
        "short",
        "uneven, backwards",
    ],
)
def test_the_tags_describe_the_rays_that_were_measured(tmp_path, made):
    """Without the reader: published formulas on the tags, exact integrals along the rays."""
    notices = write_projections(tmp_path / "scan", made)
    for dataset in datasets(tmp_path / "scan"):
        spot, elements = rays_of(dataset)
        direction = elements - spot
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        exact = MU_WATER * ellipsoid_integrals(BODY, np.broadcast_to(spot, direction.shape), direction)
        off = np.abs(measured(dataset) - exact).max()
        assert off < 0.51 * float(dataset.RescaleSlope) + 2e-4  # the edges of ellipsoids are steep
        assert np.median(np.abs(measured(dataset) - exact)) < 0.51 * float(dataset.RescaleSlope)
    assert any(f"steps of {float(dataset.RescaleSlope):.2g}" in notice for notice in notices)


@pytest.mark.parametrize("feed", [0.0, 16.0], ids=["axial", "helical"])
def test_every_tag_is_that_of_the_independent_writer(tmp_path, feed):
    """A scan of the tests' own writer, read and written again: the private groups come back element by element."""
    theirs = independent.write_scan(tmp_path / "theirs", implicit=False, feed=feed, photons=[5e4] * 40)
    write_projections(tmp_path / "ours", read_projections(theirs))
    by_number = {dataset.InstanceNumber: dataset for dataset in datasets(theirs)}
    for ours in datasets(tmp_path / "ours"):
        reference = by_number[ours.InstanceNumber]
        private = [element for element in reference if element.tag.is_private]
        assert len(private) == 26
        for element in private:
            mine = ours[element.tag]
            assert mine.VR == element.VR, element.tag
            if element.VR == "FL":
                assert np.allclose(mine.value, element.value, rtol=1e-6, atol=2e-4), element.tag
            else:
                assert mine.value == element.value, element.tag
        half = 0.51 * float(ours.RescaleSlope)
        assert (ours.Rows, ours.Columns) == (reference.Rows, reference.Columns)
        assert np.abs(measured(ours) - measured(reference)).max() < half + 1e-6
        assert ours.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        known = {element.tag for element in private} | {0x70331061}
        assert {element.tag for element in ours if element.tag.is_private} == known


def test_the_geometry_comes_back(tmp_path):
    made = replace(scan(feed=20.0, turns=1.5, flying=True, beam="fan"), isocentre_mm=(3.0, -160.0, 250.0))
    write_projections(tmp_path / "scan", made)
    read = read_projections(tmp_path / "scan")
    assert read.description["flying_focal_spot"] == "FFSXYZ"
    assert read.description["scan"] == "helical"
    assert np.abs(read.line_integrals - made.line_integrals).max() < 1e-4
    isocentre = np.array(read.isocentre_mm) - np.array(made.isocentre_mm)
    for view in range(made.trajectory.views):
        moved = read.elements_mm(view) + isocentre - made.elements_mm(view)
        assert np.abs(moved).max() < RAYS_MM
        assert np.abs(read.trajectory.source_mm[view] + isocentre - made.trajectory.source_mm[view]).max() < RAYS_MM
    assert not any("assumed" in notice for notice in read.notices)


def test_photons_come_back_as_the_weights_they_were(tmp_path):
    """Counts behind c² / (c + sigma²); bad columns have no photons, single bad elements are filled in and said."""
    made = scan(views=6)
    counts = 2e4 * np.exp(-made.line_integrals.astype(float))
    weights = (counts**2 / (counts + 25.0)).astype(np.float32)
    weights[:, :, 7] = 0
    weights[2, 1, 30] = 0
    spoilt = made.line_integrals.copy()
    spoilt[2, 1, 30] = spoilt[:, :, 7] = 0
    noisy = replace(made, line_integrals=spoilt, weights=weights, i0=2e4, electronic_sigma=5.0)
    notices = write_projections(tmp_path / "scan", noisy)
    read = read_projections(tmp_path / "scan")
    good = np.ones(60, bool)
    good[7] = False
    counts[2, 1, 30] = 2e4 * np.exp(-read.line_integrals[2, 1, 30].astype(float))  # of what was filled in
    assert read.weights[..., good] == pytest.approx(counts[..., good], rel=1e-3)
    assert not read.weights[..., 7].any()
    assert read.line_integrals[2, 1, 30] == pytest.approx(made.line_integrals[2, 1, [29, 31]].mean(), abs=1e-3)
    assert any("19 bad elements were filled in" in notice for notice in notices)
    assert any("electronic noise" in notice for notice in notices)
    assert not any("evened out" in notice for notice in notices)
    noisy.weights[:, 0] /= 2
    assert any("evened out" in notice for notice in write_projections(tmp_path / "uneven", noisy))


def test_without_weights_the_photons_are_i0(tmp_path):
    made = scan(views=3, i0=3e5)
    write_projections(tmp_path / "scan", made)
    assert all(d[0x7033, 0x1065].value == [3e5] * 60 for d in datasets(tmp_path / "scan"))
    write_projections(tmp_path / "unknown", scan(views=3, i0=None))
    assert all((0x7033, 0x1065) not in d for d in datasets(tmp_path / "unknown"))


def test_no_patient_and_no_structural_error(tmp_path):
    """pydicom's own validation, and dciodvfy: it has no definition of CT-PD and judges by that of a CT image, so
    what it misses there is a CT image's place in the patient; the coding must be right."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pydicom.config.settings.writing_validation_mode = pydicom.config.RAISE
        write_projections(tmp_path / "scan", scan(views=3, isocentre_mm=(1.0, 2.0, 3.0)))
    written = datasets(tmp_path / "scan")
    assert {str(d.PatientName) for d in written} == {str(d.PatientID) for d in written} == {"KLIP^Simulated"}
    assert len({d.SOPInstanceUID for d in written}) == 3
    assert len({d.SeriesInstanceUID for d in written}) == 1
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed")
    file = next(iter(sorted((tmp_path / "scan").iterdir())))
    said = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False).stderr
    errors = [line for line in said.splitlines() if line.startswith("Error")]
    assert "CTImage" in said
    assert all("Module=<ImagePlane>" in line for line in errors), said


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (parallel_scan(angles=turn(6), columns=20), "parallel beam"),
        (
            replace(scan(), trajectory=replace(scan().trajectory, det_v=-scan().trajectory.det_v[:, [2, 0, 1]])),
            "tilted",
        ),
        (fan_scan(angles=turn(12)[[0, 2, 1, 3]], columns=20), "do not turn one way"),
        (scan(mu_water_per_mm=0.192), "water attenuates by 0.01 to 0.05"),
    ],
)
def test_what_the_format_cannot_hold(tmp_path, made, sentence):
    with pytest.raises(UsageError, match=f"DICOM-CT-PD cannot hold this scan: .*{sentence}.*klip-projections"):
        write_projections(tmp_path / "scan", made)
    assert not (tmp_path / "scan").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        write_projections(tmp_path, scan(views=3))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
