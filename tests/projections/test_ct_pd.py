"""DICOM-CT-PD: the rays the reader understands are the rays the files were written for, whatever the encoding."""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klip_engine.errors import InputError
from klip_engine.io.projections import facts, read_projections
from tests.projections import ct_pd_writing as written
from tests.projections.ellipsoids import of_projections

ROUNDING = written.SLOPE  # half a step of the stored values, and the angles' 32 bits


def assert_rays_are_right(projections):
    expected = of_projections(projections)
    assert expected.max() > 1
    assert np.abs(expected - projections.line_integrals).max() < ROUNDING


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "explicit"])
@pytest.mark.parametrize("mode", ["FFSNONE", "FFSZ", "FFSXY", "FFSXYZ"])
def test_helical_scan_with_every_flying_focal_spot(tmp_path, implicit, mode):
    folder = written.write_scan(tmp_path / "scan", implicit=implicit, mode=mode, feed=16.0, turns=2)
    read = read_projections(folder)
    assert_rays_are_right(read)
    known = facts(read)
    assert known["geometry"]["table_feed_mm_per_turn"] == pytest.approx(16.0, abs=1e-3)
    collimation = written.ROWS * written.AXIAL * written.RHO / written.DISTANCE
    if mode == "FFSNONE":
        assert known["geometry"]["pitch"] == pytest.approx(16.0 / collimation, abs=1e-3)
    assert known["geometry"]["arc_deg"] == pytest.approx(720, abs=20)
    assert (read.beam, read.detector.shape, read.mu_water_per_mm) == ("fan", "cylindrical", 0.0193)
    assert read.description["flying_focal_spot"] == mode


@pytest.mark.parametrize("position", list(written.LEFT_BACK_HEAD))
@pytest.mark.parametrize("flat", [False, True], ids=["cylindrical", "flat"])
def test_axial_scan_lies_in_the_patient_however_he_lies(tmp_path, position, flat):
    read = read_projections(written.write_scan(tmp_path / "scan", implicit=True, position=position, flat=flat))
    assert_rays_are_right(read)
    assert facts(read)["geometry"]["pitch"] is None


def test_images_with_detector_rows_as_rows(tmp_path):
    assert_rays_are_right(read_projections(written.write_scan(tmp_path / "scan", implicit=False, transposed=False)))


def test_the_wrong_side_of_the_patient_would_show(tmp_path):
    """The phantom tells left from right: data of a supine patient do not fit a feet-first geometry."""
    change = {"change": {0x70291002: ("FL", written.TRANSVERSE)}}
    folder = written.write_scan(tmp_path / "scan", implicit=False, position="HFS", **change)
    read = read_projections(folder)
    mirrored = read.line_integrals[:, :, ::-1]
    assert np.abs(of_projections(read) - mirrored).max() > 100 * ROUNDING


def test_photon_statistics_become_weights(tmp_path):
    """Without electronic noise the inverse variance of a line integral is the expected count."""
    photons = np.linspace(1e4, 9e4, written.COLUMNS)
    read = read_projections(written.write_scan(tmp_path / "scan", implicit=True, photons=photons))
    expected = photons.astype(np.float32) * np.exp(-read.line_integrals.astype(np.float64))
    assert read.weights == pytest.approx(expected, rel=1e-5)
    assert read.i0 == pytest.approx(5e4)
    without = read_projections(written.write_scan(tmp_path / "plain", implicit=True))
    assert without.weights is None
    assert any("photon statistics" in notice for notice in without.notices)


def test_missing_views_are_said(tmp_path):
    folder = written.write_scan(tmp_path / "scan", implicit=True, feed=8.0)
    for view in (5, 6):
        (folder / f"{(view * 7919) % 10007:05d}.dcm").unlink()
    read = read_projections(folder)
    assert_rays_are_right(read)
    assert any("2 views are missing, the first after view 4" in notice for notice in read.notices)


def test_order_without_instance_numbers(tmp_path):
    folder = written.write_scan(tmp_path / "scan", implicit=True, feed=8.0, without=[0x00200013])
    assert_rays_are_right(read_projections(folder))


def test_nothing_about_the_patient_is_kept(tmp_path):
    read = read_projections(written.write_scan(tmp_path / "scan", implicit=False))
    assert "Doe" not in str((read.description, read.notices))
    assert "1.2.3" not in str((read.description, read.notices))


@pytest.mark.parametrize(
    ("spoilt", "sentence"),
    [
        ({"without": [0x70311003]}, "lacks DetectorFocalCenterRadialDistance"),
        ({"without": [0x00281053]}, "no rescale slope"),
        ({"change": {0x70291010: ("US", 5)}}, "describes a detector of 5 rows"),
        ({"change": {0x7029100B: ("CS", "SPHERICAL")}}, "SPHERICAL"),
        ({"change": {0x70391009: ("CS", "NO")}}, "before the logarithm"),
        ({"change": {0x7037100A: ("CS", "PARALLEL")}}, "rebinned to parallel"),
        ({"change": {0x70331061: ("US", 2)}}, "2 tubes or spectra"),
        ({"change": {0x70411001: ("DS", "0.193")}}, "its unit is not known"),
        ({"change": {0x70311001: ("FL", 1.0)}}, "do not turn one way"),
        ({"change": {0x70311003: ("FL", float("nan"))}}, "finite"),
        ({"change": {0x70291002: ("FL", 0.0)}}, "column pitch of 0 mm"),
        ({"change": {0x7033100E: ("CS", "FFSQ")}}, "unknown flying focal spot mode"),
    ],
)
def test_refused(tmp_path, spoilt, sentence):
    folder = written.write_scan(tmp_path / "scan", 6, implicit=True, **spoilt)
    with pytest.raises(InputError, match=sentence) as refused:
        read_projections(folder)
    assert refused.value.exit_code == 3


def test_a_truncated_view_a_second_scan_and_views_out_of_order(tmp_path):
    folder = written.write_scan(tmp_path / "scan", 6, implicit=True)
    other = folder / "other.dcm"
    written.write_view(other, 3, 6, implicit=True, series="1.2.3.5")
    with pytest.raises(InputError, match="2 series"):
        read_projections(folder)
    written.write_view(other, 3, 6, implicit=True)
    with pytest.raises(InputError, match="same instance number"):
        read_projections(folder)
    written.write_view(other, 4, 6, implicit=True, number=40)
    with pytest.raises(InputError, match="do not turn one way"):
        read_projections(folder)
    written.write_view(other, 5, 6, implicit=True, number=40, change={0x70291006: ("FL", 1.0)})
    with pytest.raises(InputError, match="another detector than the first view"):
        read_projections(folder)
    other.unlink()
    victim = next(iter(sorted(folder.iterdir())))
    victim.write_bytes(victim.read_bytes()[:-50])
    with pytest.raises(InputError, match="truncated"):
        read_projections(folder)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 0.999), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_view_is_read_or_refused_but_nothing_else_happens(tmp_path, where, byte, cut):
    folder = tmp_path / "fuzzed"
    if not folder.exists():
        written.write_scan(folder, 3, implicit=True)
        (tmp_path / "good.dcm").write_bytes((folder / "00000.dcm").read_bytes())
    content = bytearray((tmp_path / "good.dcm").read_bytes())
    at = int(where * len(content))
    content[at] = byte
    (folder / "00000.dcm").write_bytes(content[:at] if cut else content)
    with contextlib.suppress(InputError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isfinite(read_projections(folder).line_integrals).all()
