"""What measured scans need: grids away from the isocentre, detectors that do not see everything, Parker's
weights."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from klip_engine.errors import InputError
from klip_engine.operators import (
    CTOperator,
    FanCurvedGeometry,
    FanFlatGeometry,
    ParallelGeometry,
    filtered_back_projection,
)
from klip_engine.operators.fbp import _back_project, _filter_rows, _ray_weights
from klip_engine.operators.phantom import ASYMMETRIC_PHANTOM, Ellipse, phantom_image, phantom_sinogram

FANS = pytest.mark.parametrize("geometry_type", [FanFlatGeometry, FanCurvedGeometry], ids=lambda cls: cls.kind)
CENTRE = (31.0, -18.0)


def test_an_image_grid_away_from_the_isocentre(geometry_type):
    """Projections of the shifted grid against closed-form ones, and the plateaus back from them."""
    geometry = geometry_type.evenly_spaced(
        360, image_shape=(240, 300), pixel_spacing_mm=1.3, image_centre_mm=CENTRE, detector_offset_bins=0.25
    )
    truth = phantom_image(ASYMMETRIC_PHANTOM, geometry)
    exact = phantom_sinogram(ASYMMETRIC_PHANTOM, geometry)
    few = dataclasses.replace(geometry, view_angles_rad=geometry.view_angles_rad[::30])
    projected = CTOperator(few).forward(truth.float())
    assert (projected - exact[:, ::30]).norm() / exact[:, ::30].norm() < 0.013
    image = filtered_back_projection(exact.float(), geometry, "hann")
    for x, y, value in ((0, -70, 1.0), (-66, 10, 0.3), (66, -40, 0.3), (4, 74, 1.6), (66, 54, 1.06)):
        row = round((y - CENTRE[1]) / 1.3 + 119.5)
        column = round((x - CENTRE[0]) / 1.3 + 149.5)
        assert float(image[0, 0, row - 3 : row + 4, column - 3 : column + 4].mean()) == pytest.approx(
            value, abs=0.01
        )


@FANS
def test_a_shifted_grid_must_still_leave_the_source_outside(geometry_type):
    with pytest.raises(InputError, match=r"source_to_isocentre_mm .* inside the image"):
        geometry_type.evenly_spaced(9, image_shape=(128, 160), pixel_spacing_mm=3.0, image_centre_mm=(400.0, 0.0))
    with pytest.raises(InputError, match="image_centre_mm"):
        geometry_type.evenly_spaced(9, image_centre_mm=(0.0, math.nan))


def test_truncated_projections_are_extrapolated(geometry_type):
    """A body of 300 mm on a field of 220 mm: without extrapolation the rim of the field is hundreds of HU wrong."""
    grid = {"image_shape": (150, 150), "pixel_spacing_mm": 1.4}
    whole = geometry_type.evenly_spaced(360, **grid)
    cut = dataclasses.replace(whole, detector_count=round(220 * whole.magnification / whole.detector_pitch_mm))
    sinogram = phantom_sinogram(ASYMMETRIC_PHANTOM, cut).float()
    assert float(sinogram[..., 0].max()) > 50  # it does reach beyond
    truth = phantom_image(ASYMMETRIC_PHANTOM, cut)[0, 0]
    place = (torch.arange(150) - 74.5) * 1.4
    rim = ((place[:, None] ** 2 + place**2).sqrt() - 95).abs() < 8
    errors = []
    for water in (None, 1.0):
        image = filtered_back_projection(sinogram, cut, "hann", water=water)[0, 0]
        errors.append(float((image - truth)[rim].abs().mean()))
    assert errors[1] < 0.05
    assert errors[1] < 0.2 * errors[0]


def test_extrapolation_leaves_what_is_not_truncated(geometry_type):
    geometry = geometry_type.evenly_spaced(90, image_shape=(120, 140), pixel_spacing_mm=3.0)
    sinogram = phantom_sinogram(ASYMMETRIC_PHANTOM, geometry).float()
    plain, extended = (filtered_back_projection(sinogram, geometry, water=water) for water in (None, 1.0))
    torch.testing.assert_close(extended, plain, rtol=0, atol=2e-3)


@FANS
def test_short_scans_agree_with_parkers_weights(geometry_type):
    """Parker, Med. Phys. 9, 1982, 254-257, over the minimal arc of half a turn and the fan."""
    scan = geometry_type.evenly_spaced(720, image_shape=(160, 160), pixel_spacing_mm=1.9, detector_offset_bins=0.25)
    delta = float(scan.fan_angles_rad().abs().max())
    views = 450
    arc = math.pi + 2 * delta
    angles = tuple((i + 0.5) * arc / views for i in range(views))
    scan = dataclasses.replace(scan, view_angles_rad=angles)
    sinogram = phantom_sinogram(ASYMMETRIC_PHANTOM, scan).float()
    ours = filtered_back_projection(sinogram, scan)
    obliquity = scan.source_to_isocentre_mm * scan.fan_angles_rad().cos()
    weights = parker(torch.tensor(angles)[:, None], scan.fan_angles_rad(), delta) * obliquity * arc / views
    theirs = _back_project(_filter_rows(sinogram * weights.to(sinogram), scan, "ram-lak"), scan)
    inside = phantom_image(ASYMMETRIC_PHANTOM[:1], scan) > 0.99
    assert float((ours - theirs)[inside].abs().mean()) < 0.005
    assert float((ours - theirs)[inside].mean().abs()) < 0.001


def parker(beta: torch.Tensor, gamma: torch.Tensor, delta: float) -> torch.Tensor:
    """Weights of rays (beta, gamma); of our angles, where ray (beta, gamma) is (beta + pi - 2 gamma, -gamma)
    again."""
    gamma = -gamma  # Parker's fan angle grows the other way: his copy is at beta + pi + 2 gamma
    rising = torch.sin(math.pi / 4 * beta / (delta - gamma)).square()
    falling = torch.sin(math.pi / 4 * (math.pi + 2 * delta - beta) / (delta + gamma)).square()
    weights = torch.ones(torch.broadcast_shapes(beta.shape, gamma.shape), dtype=torch.float64)
    weights = torch.where(beta < 2 * (delta - gamma), rising, weights)
    return torch.where(beta > math.pi - 2 * gamma, falling, weights)


@FANS
def test_the_weights_of_a_ray_and_its_copy_add_up_to_one(geometry_type):
    scan = geometry_type.evenly_spaced(720, arc_deg=240, image_shape=(100, 100), pixel_spacing_mm=2.0)
    weights = _ray_weights(scan, torch.zeros(1, dtype=torch.float64))
    step = math.radians(240 / 720)
    share = weights / (step * scan.source_to_isocentre_mm * scan.fan_angles_rad().cos())
    gamma = scan.fan_angles_rad()
    for bin_ in (5, len(gamma) // 3):
        copy = ((torch.arange(720) * step + math.pi - 2 * gamma[bin_]) % (2 * math.pi)) / step
        copy = copy.double()
        below = copy.floor().long()
        seen = below < 719
        other = torch.lerp(
            share[below.clamp(max=718), -1 - bin_], share[below.clamp(max=718) + 1, -1 - bin_], copy - below
        )
        total = share[:, bin_] + torch.where(seen, other, 0.0)
        assert float((total - 1).abs().max()) < 0.01


def test_a_quarter_shift_tells_more_than_a_centred_detector():
    """A full turn with the detector a quarter bin off samples every line half a bin apart: finer detail comes
    back."""
    bars = [Ellipse(x, 0, 1.0, 40.0, 0, 1.0) for x in range(-40, 41, 4)]
    errors = []
    for offset in (0.0, 0.25):
        scan = FanCurvedGeometry.evenly_spaced(
            720, image_shape=(120, 120), pixel_spacing_mm=1.0, detector_offset_bins=offset, detector_pitch_mm=3.4
        )
        truth = phantom_image(bars, scan)
        errors.append(float((filtered_back_projection(phantom_sinogram(bars, scan).float(), scan) - truth).norm()))
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("geometry_type", [ParallelGeometry, FanFlatGeometry, FanCurvedGeometry])
def test_a_detector_to_one_side_sees_the_field_in_a_full_turn(geometry_type):
    """A detector that covers little more than one half still measures every line over a full turn."""
    whole = geometry_type.evenly_spaced(720, arc_deg=360, image_shape=(256, 256), pixel_spacing_mm=1.4)
    count = whole.detector_count // 2 + 30
    shifted = dataclasses.replace(
        whole, detector_count=count, detector_offset_bins=(whole.detector_count - count) / 2
    )
    image = filtered_back_projection(phantom_sinogram(ASYMMETRIC_PHANTOM, shifted).float(), shifted)[0, 0]
    for x, y, value in ((0, -70, 1.0), (-66, 10, 0.3), (66, -40, 0.3), (4, 74, 1.6), (66, 54, 1.06), (0, 20, 1.0)):
        row, column = round(y / 1.4 + 127.5), round(x / 1.4 + 127.5)
        assert float(image[row - 3 : row + 4, column - 3 : column + 4].mean()) == pytest.approx(value, abs=0.01)
