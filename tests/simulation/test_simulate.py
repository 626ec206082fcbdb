"""Simulated scans come back as the volumes they were made of, in patient coordinates; nonsense is refused."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from klip_engine.errors import UsageError
from klip_engine.scans import reconstruct, to_slices
from klip_engine.simulation import (
    SimulationSettings,
    plane_projector,
    plane_scan,
    room,
    scanned_volume,
    simulate,
)
from klip_engine.simulation.beam import OneEnergy
from klip_engine.volume import CTVolume, Geometry
from tests.simulation.conftest import PIXEL_MM, SIDE, body, small


def middles(volume, low, high, near_lps, within_mm=25):
    """Centre of mass in LPS of voxels between two HU near a place, slice by slice."""
    index = np.argwhere((volume.hu > low) & (volume.hu < high))
    places = volume.geometry.to_lps(index[:, ::-1])
    near = np.linalg.norm(places[:, :2] - near_lps[:2], axis=1) < within_mm
    return {z: places[near & (index[:, 0] == z)].mean(axis=0) for z in range(len(volume.hu))}


@pytest.mark.parametrize("geometry", ["parallel", "fan-flat", "fan-curved"])
@pytest.mark.parametrize("offset", [0.0, 0.25, -18.0])
def test_the_volume_comes_back_in_its_place(geometry, offset):
    """Also with a quarter-detector shift and with a large one, which sees the body from one side at a time."""
    volume = body()
    arc = 360.0 if geometry == "parallel" else None
    scan = simulate(volume, small(geometry=geometry, views=120, offset_bins=offset, arc_deg=arc))
    again = reconstruct(to_slices(scan))
    assert again.geometry.size == volume.geometry.size
    assert again.geometry.spacing == pytest.approx(volume.geometry.spacing)
    assert again.geometry.origin == pytest.approx(volume.geometry.origin)
    inner = sitk.GetArrayFromImage(
        sitk.BinaryErode(sitk.GetImageFromArray((volume.hu == 0).astype(np.uint8)), (2, 2, 0))
    ).astype(bool)
    assert abs(float(again.hu[inner].mean())) < 15
    isocentre = volume.geometry.to_lps(((SIDE - 1) / 2, (SIDE - 1) / 2, 0))
    bone = isocentre + np.array([45, 10, 0])
    for z, place in middles(again, 300, 1000, bone).items():
        assert place == pytest.approx([bone[0], bone[1], 40 + 5 * z], abs=1.5)
    for z in range(3):
        spot = isocentre + np.array([-50 + 10 * z, 25, 0])
        assert middles(again, 150, 1000, spot, 20)[z][:2] == pytest.approx(spot[:2], abs=2.5)


def test_a_helix_shows_each_slice_where_it_is():
    volume = body(9, slice_mm=3.0)
    settings = small(geometry="helical", views=90, detector_rows=8, row_mm=4.0, pitch=0.9, slices=(2, 7))
    scan = simulate(volume, settings)
    assert scan.beam == "fan"
    z = scan.trajectory.det_center_mm[:, 2] + scan.isocentre_mm[2]
    assert z.mean() == pytest.approx(40 + 3 * 4)
    assert np.ptp(z) >= 4 * 3 + settings.collimation_mm
    slices = to_slices(scan)
    again = reconstruct(slices)
    assert min(slices.positions_mm) <= 40 + 3 * 2
    assert max(slices.positions_mm) >= 40 + 3 * 6
    for number, height in enumerate(slices.positions_mm):
        if not 46 <= height <= 58:  # other slices than those asked for are seen by few rows
            continue
        apart = [np.abs(again.hu[number] - plane).mean() for plane in volume.hu]
        assert abs(int(np.argmin(apart)) - (height - 40) / 3) <= 0.6


def test_a_detector_inside_the_volume_ends_no_ray():
    """Some files name a detector through the isocentre, where its elements are as large as what they see."""
    volume = body(3)
    volume.hu[:] = volume.hu[1]
    near = {"source_isocentre_mm": 400.0, "source_detector_mm": 400.0, "bin_mm": 2.8, "views": 24}
    resting = simulate(volume, small(slices=(1, 2), **near))
    helix = simulate(volume, small(geometry="helical", detector_rows=1, row_mm=5.0, **near))
    assert helix.line_integrals[:24] == pytest.approx(resting.line_integrals, abs=1e-3)


@pytest.mark.parametrize("turned", [(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0), (1.0, 0, 0, 0, 0, 1.0, 0, -1.0, 0)])
def test_volumes_in_any_orientation(turned):
    """A flipped volume and one of sagittal-like slices give what the axial one gives."""
    axial = body(16, slice_mm=PIXEL_MM)
    direction = np.reshape(turned, (3, 3))
    size = np.abs(direction.T @ np.array(axial.geometry.size)).round().astype(int)
    corners = axial.geometry.to_lps([(0, 0, 0), np.array(axial.geometry.size) - 1])
    signs = direction.sum(axis=1)
    origin = np.where(signs > 0, corners.min(axis=0), corners.max(axis=0))
    grid = Geometry(tuple(int(n) for n in size), (PIXEL_MM,) * 3, tuple(origin), turned)
    image = sitk.Resample(
        axial.geometry.image(axial.hu), grid.empty_image(), sitk.Transform(), sitk.sitkNearestNeighbor
    )
    other = CTVolume.from_image(sitk.Cast(image, sitk.sitkFloat32))
    expected, scan = (simulate(v, small(views=12, slices=(5, 8))) for v in (axial, other))
    assert scan.line_integrals == pytest.approx(expected.line_integrals, abs=1e-3)
    assert scan.isocentre_mm == pytest.approx(expected.isocentre_mm)


def test_coarse_pixels_are_divided_and_fine_ones_taken_as_they_are():
    assert scanned_volume(body(1), small(pixel_mm=4.0)).volume.geometry.spacing[0] == PIXEL_MM
    divided = scanned_volume(body(1), small(pixel_mm=1.5)).volume
    assert divided.geometry.spacing[0] == pytest.approx(PIXEL_MM / 3)
    assert divided.geometry.size[:2] == (3 * SIDE, 3 * SIDE)
    corner, own = divided.geometry.to_lps((-0.5, -0.5, 0)), body(1).geometry.to_lps((-0.5, -0.5, 0))
    assert corner == pytest.approx(own)


def test_thick_slices_are_means_in_intensity():
    volume = body(4)
    thin = simulate(volume, small(views=12)).line_integrals.reshape(4, 12, -1)
    scan = simulate(volume, small(views=12, slice_mm=10.0))
    thick = scan.line_integrals.reshape(2, 12, -1)
    for number in range(2):
        mean = -np.log(np.exp(-thin[2 * number : 2 * number + 2]).mean(axis=0))
        assert thick[number] == pytest.approx(mean, abs=1e-5)
    assert to_slices(scan).positions_mm == pytest.approx((42.5, 52.5))


def test_the_same_seed_gives_the_same_scan():
    noisy = [simulate(body(1), small(views=8, dose="low", dead_pixels=0.1, seed=s)) for s in (3, 3, 4)]
    assert np.array_equal(noisy[0].line_integrals, noisy[1].line_integrals)
    assert not np.array_equal(noisy[0].line_integrals, noisy[2].line_integrals)
    assert (noisy[0].i0, noisy[0].electronic_sigma) == (2.5e5, 5.0)


def test_lodopab_has_its_own_water():
    scans = [simulate(body(1), small(views=8, dose=dose)) for dose in ("none", "lodopab")]
    assert scans[1].mu_water_per_mm == 0.02
    assert scans[0].mu_water_per_mm == 0.0192
    middle = [scan.line_integrals[:, 0, 45:55].mean() / scan.mu_water_per_mm for scan in scans]
    assert middle[1] == pytest.approx(middle[0], rel=0.02)


def test_the_projector_of_a_scan_serves_many_volumes():
    settings = small(views=16)
    scanned = scanned_volume(body(2), settings)
    projector, beam = plane_projector(plane_scan(settings, scanned), settings), OneEnergy(0.0192)
    for volume in (body(2), CTVolume(body(2).hu[::-1].copy(), body(2).geometry)):
        signal = projector.transmission(beam.taken_apart(torch.from_numpy(volume.hu)), beam)
        whole = simulate(volume, settings).line_integrals.reshape(2, 16, -1)
        assert -np.log(signal.numpy()) == pytest.approx(whole, abs=1e-5)


def test_a_small_detector_is_said_to_truncate():
    assert simulate(body(1), small(views=8)).notices == ()
    notices = simulate(body(1), small(views=8, detector_bins=30)).notices
    assert len(notices) == 1
    assert "truncated" in notices[0]


def test_everything_set_is_in_the_description():
    settings = small(views=8, scatter=0.05, slices=(1, 2))
    said = simulate(body(2), settings).description["simulation"]
    assert said == settings.to_dict()
    assert SimulationSettings(**{**said, "slices": tuple(said["slices"])}) == settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"geometry": "cone"}, "unknown geometry"),
        ({"dose": "high"}, "unknown dose"),
        ({"rays": "strip"}, "unknown kind of rays"),
        ({"views": 1}, "views"),
        ({"arc_deg": 5.0}, "arc of 5 degrees"),
        ({"arc_deg": 400.0}, "arc of 400 degrees"),
        ({"geometry": "helical", "arc_deg": 270.0}, "no full turn"),
        ({"dead_pixels": 1.2}, "from 0 to 1"),
        ({"dead_pixels": 0.6, "drifting_pixels": 0.6}, "more bad pixels"),
        ({"dead_pixels": 1.0}, "nothing is measured"),
        ({"kvp": 500.0}, "kvp of a simulated scan is 500; it must be from 40 to 150"),
        ({"bin_mm": 0.0}, "bin_mm"),
        ({"scatter": -0.1}, "scatter"),
        ({"scatter": float("nan")}, "scatter of a simulated scan is nan"),
        ({"scatter": 1e300}, "scatter"),
        ({"spot_mm": 1e9}, "spot_mm"),
        ({"start_deg": 1e300}, "start_deg"),
        ({"offset_bins": float("inf")}, "offset_bins"),
        ({"pitch": 1e-9}, "pitch"),
        ({"views": 10**9}, "views"),
        ({"seed": 10**20}, "seed"),
        ({"slices": (4, 4)}, "no slices 4:4"),
        ({"source_isocentre_mm": 700.0, "source_detector_mm": 600.0}, "beyond the isocentre"),
        ({"angle_step_error_deg": -20.0}, "backwards"),
        ({"sub_rays": 9}, "1 to 6"),
        ({"seed": -1}, "seed"),
    ],
)
def test_scanners_that_cannot_be(settings, words):
    with pytest.raises(UsageError, match=words):
        small(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source_isocentre_mm": 80.0, "source_detector_mm": 300.0}, "stand in the body"),
        ({"source_isocentre_mm": 150.0, "source_detector_mm": 400.0}, "stand in the volume"),
        ({"offset_bins": 150.0}, "sees nothing"),
        ({"offset_bins": 400.0}, "around the source"),
        ({"slices": (0, 9)}, "has 3 axial slices"),
        ({"slice_mm": 50.0}, "less than one"),
    ],
)
def test_scanners_that_do_not_fit_the_volume(settings, words):
    with pytest.raises(UsageError, match=words):
        simulate(body(), small(**settings))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pixel_mm": 0.01}, "the volume with divided pixels would have"),
        ({"slice_mm": 0.01}, "the measured slices would have"),
        ({"detector_bins": 2000, "bin_mm": 0.1}, "the rays of one view"),
        ({"views": 4000}, "the scan would have"),
        ({"geometry": "helical", "pitch": 0.01}, "the helix would have"),
    ],
)
def test_what_would_fill_the_memory_is_refused_before_it_is_begun(settings, words, monkeypatch):
    monkeypatch.setattr(room, "MOST_VALUES", 1_000_000)
    assert simulate(body(1), small(views=8)).line_integrals.size == 800
    with pytest.raises(UsageError, match=words):
        simulate(body(), small(**settings))


def test_a_volume_of_air_has_nothing_to_scan():
    air = CTVolume(np.full((1, 8, 8), -1000, np.float32), Geometry((8, 8, 1), (4.0, 4.0, 4.0)))
    with pytest.raises(UsageError, match="no body"):
        simulate(air, small())
