"""The projector against ASTRA, closed-form ellipses and hand-drawn rays, at the resolution of a CT slice."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from klip_engine.operators import CTOperator, FanFlatGeometry, ParallelGeometry, ScanGeometry
from klip_engine.operators.geometry import Rays
from klip_engine.operators.phantom import (
    ASYMMETRIC_PHANTOM,
    phantom_image,
    phantom_line_integrals,
    phantom_sinogram,
)


def relative_error(result: torch.Tensor, truth: torch.Tensor) -> float:
    return float((result.double() - truth.double()).norm() / truth.double().norm())


def scan_512(geometry_type: type[ScanGeometry]) -> ScanGeometry:
    return geometry_type.evenly_spaced(
        24, image_shape=(512, 512), pixel_spacing_mm=0.7, detector_offset_bins=0.25, start_deg=5
    )


def test_line_integrals_of_ellipses(geometry_type):
    geometry = scan_512(geometry_type)
    sinogram = CTOperator(geometry).forward(phantom_image(ASYMMETRIC_PHANTOM, geometry).float())
    assert relative_error(sinogram, phantom_sinogram(ASYMMETRIC_PHANTOM, geometry)) < 0.005


def test_line_integrals_on_a_grid_that_is_not_square(geometry_type):
    geometry = geometry_type.evenly_spaced(12, image_shape=(320, 440), pixel_spacing_mm=0.8)
    sinogram = CTOperator(geometry).forward(phantom_image(ASYMMETRIC_PHANTOM, geometry).float())
    assert relative_error(sinogram, phantom_sinogram(ASYMMETRIC_PHANTOM, geometry)) < 0.005


def test_rays_run_where_the_documentation_says(geometry_type):
    """Written out again in numpy from the module's text, one view at a time."""
    geometry = geometry_type.evenly_spaced(7, start_deg=20, detector_count=31, detector_offset_bins=0.25)
    rays = geometry.rays(0, 7)
    position = (np.arange(31) - 15 + 0.25) * geometry.detector_pitch_mm
    for view, angle in enumerate(geometry.view_angles_rad):
        u, d = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
        if geometry.kind == "parallel":
            start, end = position[:, None] * u, position[:, None] * u + d
        else:
            start = np.tile(-geometry.source_to_isocentre_mm * d, (31, 1))
            distance = geometry.source_to_detector_mm
            if geometry.kind == "fan-flat":
                end = start + distance * d + position[:, None] * u
            else:
                fan = (position / distance)[:, None]
                end = start + distance * (np.cos(fan) * d + np.sin(fan) * u)
        direction = (end - start) / np.linalg.norm(end - start, axis=1, keepdims=True)
        drawn = Rays(torch.from_numpy(start), torch.from_numpy(direction))
        of_view = Rays(*(part[31 * view : 31 * (view + 1)] for part in rays))
        torch.testing.assert_close(
            phantom_line_integrals(ASYMMETRIC_PHANTOM, of_view),
            phantom_line_integrals(ASYMMETRIC_PHANTOM, drawn),
        )


def test_at_angle_0_columns_add_up_along_the_rays_and_bins_count_towards_plus_x():
    geometry = ParallelGeometry.evenly_spaced(
        1, image_shape=(6, 9), pixel_spacing_mm=2.0, detector_count=9, detector_pitch_mm=2.0
    )
    image = torch.arange(54, dtype=torch.float64).reshape(1, 1, 6, 9)
    torch.testing.assert_close(CTOperator(geometry).forward(image)[0, 0], image[0, 0].sum(dim=0) * 2.0)


def test_at_angle_90_rows_add_up_and_bins_count_towards_plus_y():
    geometry = ParallelGeometry.evenly_spaced(
        1, start_deg=90, image_shape=(6, 9), pixel_spacing_mm=2.0, detector_count=6, detector_pitch_mm=2.0
    )
    image = torch.arange(54, dtype=torch.float64).reshape(1, 1, 6, 9)
    torch.testing.assert_close(CTOperator(geometry).forward(image)[0, 0], image[0, 0].sum(dim=1) * 2.0)


@pytest.mark.parametrize("geometry_type", [ParallelGeometry, FanFlatGeometry], ids=lambda cls: cls.kind)
def test_projections_of_astra(geometry_type):
    astra = pytest.importorskip("astra", reason="astra-toolbox is not installed")
    geometry = scan_512(geometry_type)
    image = phantom_image(ASYMMETRIC_PHANTOM, geometry).float()
    ours = CTOperator(geometry).forward(image)[0]
    projectors = {"parallel": ["linear", "line"], "fan-flat": ["line_fanflat"]}
    for projector in projectors[geometry.kind]:
        theirs = astra_projection(astra, geometry, projector, image[0, 0].numpy())
        assert relative_error(ours, torch.from_numpy(theirs)) < 0.002


def astra_projection(astra, geometry: ScanGeometry, projector: str, image: np.ndarray) -> np.ndarray:
    """ASTRA's y axis points up; its vectors are source (or ray), detector centre and step of one bin."""
    half = [0.5 * side * geometry.pixel_spacing_mm for side in geometry.image_shape]
    volume = astra.create_vol_geom(*geometry.image_shape, -half[1], half[1], -half[0], half[0])
    angle = np.array(geometry.view_angles_rad)
    u = np.stack([np.cos(angle), -np.sin(angle)], axis=1)
    d = np.stack([-np.sin(angle), -np.cos(angle)], axis=1)
    step = geometry.detector_pitch_mm * u
    centre = geometry.detector_offset_bins * step
    if geometry.kind == "parallel":
        first, kind = d, "parallel_vec"
    else:
        first, kind = -geometry.source_to_isocentre_mm * d, "fanflat_vec"
        centre = centre + (geometry.source_to_detector_mm - geometry.source_to_isocentre_mm) * d
    scan = astra.create_proj_geom(kind, geometry.detector_count, np.concatenate([first, centre, step], axis=1))
    projector_id = astra.create_projector(projector, scan, volume)
    sinogram_id, sinogram = astra.create_sino(image, projector_id)
    astra.data2d.delete(sinogram_id)
    astra.projector.delete(projector_id)
    return sinogram
