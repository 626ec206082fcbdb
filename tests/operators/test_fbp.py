"""Filtered back-projection: a known slice comes back, the right way round and in its unit."""

from __future__ import annotations

import math

import pytest
import torch

from klip_engine.errors import UsageError
from klip_engine.operators import (
    CTOperator,
    FanCurvedGeometry,
    FanFlatGeometry,
    ParallelGeometry,
    ScanGeometry,
    filtered_back_projection,
)
from klip_engine.operators.fbp import FILTERS
from klip_engine.operators.phantom import ASYMMETRIC_PHANTOM, Ellipse, phantom_image, phantom_sinogram

PLATEAUS = {
    "soft tissue": (0, -70, 1.0),
    "right lung": (-66, 10, 0.3),
    "left lung": (66, -40, 0.3),
    "vertebra": (4, 74, 1.6),
    "organ": (66, 54, 1.06),
    "centre": (0, 20, 1.0),
    "air": (0, -140, 0.0),
}
"""(x mm, y mm, value) inside regions of `ASYMMETRIC_PHANTOM` at least 8 mm across."""


def plateau_errors_hu(image: torch.Tensor, geometry: ScanGeometry) -> dict[str, float]:
    """Mean of 7 x 7 pixels minus the phantom's value; one unit of water is 1000 HU."""
    rows, columns = geometry.image_shape
    errors = {}
    for name, (x, y, value) in PLATEAUS.items():
        column = round(x / geometry.pixel_spacing_mm + (columns - 1) / 2)
        row = round(y / geometry.pixel_spacing_mm + (rows - 1) / 2)
        mean = image[0, 0, row - 3 : row + 4, column - 3 : column + 4].mean()
        errors[name] = 1000 * (float(mean) - value)
    return errors


def scan(geometry_type: type[ScanGeometry], views: int = 720, **options) -> ScanGeometry:
    options = {"image_shape": (256, 256), "pixel_spacing_mm": 1.4, "detector_offset_bins": 0.25} | options
    return geometry_type.evenly_spaced(views, **options)


def reconstruct(geometry: ScanGeometry, filter_name: str = "ram-lak") -> torch.Tensor:
    return filtered_back_projection(phantom_sinogram(ASYMMETRIC_PHANTOM, geometry).float(), geometry, filter_name)


@pytest.mark.parametrize("filter_name", FILTERS)
def test_plateaus_of_720_views_are_within_three_hu(geometry_type, filter_name):
    geometry = scan(geometry_type)
    errors = plateau_errors_hu(reconstruct(geometry, filter_name), geometry)
    assert max(map(abs, errors.values())) < 3, errors


def test_plateaus_through_the_projector_itself(geometry_type):
    geometry = scan(geometry_type, 240, image_shape=(160, 190), pixel_spacing_mm=1.8, arc_deg=360)
    operator = CTOperator(geometry)
    image = operator.pseudo_inverse(operator.forward(phantom_image(ASYMMETRIC_PHANTOM, geometry).float()))
    errors = plateau_errors_hu(image, geometry)
    assert max(map(abs, errors.values())) < 5, errors


def test_the_slice_comes_back_the_right_way_round(geometry_type):
    geometry = scan(geometry_type, 180)
    truth = phantom_image(ASYMMETRIC_PHANTOM, geometry)[0, 0]
    result = reconstruct(geometry)[0, 0].double()
    turned = [torch.rot90(result, quarter) for quarter in range(4)]
    turned += [image.flip(0) for image in turned]
    correlation = [float(torch.corrcoef(torch.stack([image.flatten(), truth.flatten()]))[0, 1]) for image in turned]
    assert correlation[0] > 0.99
    assert max(correlation[1:]) < correlation[0] - 0.02


@pytest.mark.parametrize("geometry_type", [FanFlatGeometry, FanCurvedGeometry], ids=lambda cls: cls.kind)
@pytest.mark.parametrize("arc_deg", [230, 300])
def test_a_short_fan_scan_suffices(geometry_type, arc_deg):
    """Half a turn and the fan's 50 degrees measure every line of the body at least once."""
    geometry = scan(geometry_type, 720, arc_deg=arc_deg, start_deg=25)
    errors = plateau_errors_hu(reconstruct(geometry), geometry)
    assert max(map(abs, errors.values())) < 5, errors


def test_uneven_and_unordered_views(geometry_type, rng):
    """Steps between half and one and a half times the mean, views shuffled."""
    even = scan(geometry_type)
    arc = math.radians(even.full_arc_deg)
    jittered = (torch.arange(720) + 0.5 * torch.rand(720, generator=rng)) * arc / 720
    angles = jittered[torch.randperm(720, generator=rng)].tolist()
    fields = {name: value for name, value in even.to_dict().items() if name != "kind"}
    geometry = geometry_type(**fields | {"view_angles_rad": tuple(angles)})
    errors = plateau_errors_hu(reconstruct(geometry), geometry)
    assert max(map(abs, errors.values())) < 5, errors


def test_a_full_turn_of_parallel_views_counts_every_line_twice():
    geometry = scan(ParallelGeometry, 720, arc_deg=360)
    errors = plateau_errors_hu(reconstruct(geometry), geometry)
    assert max(map(abs, errors.values())) < 5, errors


def test_limited_angle_keeps_the_edges_along_its_rays():
    """A disc seen over 90 degrees about the vertical keeps its left and right edge, not top and bottom."""
    disc = [Ellipse(x_mm=0, y_mm=0, semi_axis_1_mm=60, semi_axis_2_mm=60, tilt_deg=0, value=1.0)]
    geometry = scan(ParallelGeometry, 360, arc_deg=90, start_deg=-45)
    image = filtered_back_projection(phantom_sinogram(disc, geometry).float(), geometry, "hann")[0, 0]
    centre, inside, outside = 128, 128 - 38, 128 - 48
    step_across_rays = image[centre, inside] - image[centre, outside]
    step_along_rays = image[inside, centre] - image[outside, centre]
    assert step_across_rays > 0.8
    assert step_along_rays < 0.5 * step_across_rays


def test_unknown_filter_is_named():
    geometry = scan(ParallelGeometry, 4)
    with pytest.raises(UsageError, match=r"shepp.*ram-lak, hann"):
        CTOperator(geometry, fbp_filter="shepp")
