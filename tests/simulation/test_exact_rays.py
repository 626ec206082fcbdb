"""The projector of simulations against ASTRA's exact lengths, closed forms and a brute-force walk."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from klip_engine.operators import FanCurvedGeometry, FanFlatGeometry, ParallelGeometry
from klip_engine.operators.geometry import Rays
from klip_engine.operators.phantom import (
    ASYMMETRIC_PHANTOM,
    phantom_image,
    phantom_line_integrals,
    phantom_sinogram,
)
from klip_engine.simulation.beam import OneEnergy
from klip_engine.simulation.exact_rays import exact_entries
from klip_engine.simulation.helix_projector import HelixProjector, Stack
from klip_engine.simulation.plane_projector import PlaneProjector
from klip_engine.simulation.sub_rays import sub_rays
from tests.operators.test_ct_forward import astra_projection
from tests.projections.scanner import BODY, ellipsoid_integrals, slice_image

BEAM = OneEnergy(0.02)
GRID = {"image_shape": (120, 150), "pixel_spacing_mm": 2.1, "detector_count": 160, "views": 23}


def projected(geometry, image, **options):
    """Line integrals [views, bins] of one image."""
    transmission = PlaneProjector(geometry, **options).transmission(torch.as_tensor(image)[None, None], BEAM)
    return -torch.log(transmission[0].double())


@pytest.mark.parametrize(("kind", "name"), [(ParallelGeometry, "line"), (FanFlatGeometry, "line_fanflat")])
def test_lengths_are_those_of_astra(kind, name):
    astra = pytest.importorskip("astra", reason="astra-toolbox is not installed")
    geometry = kind.evenly_spaced(start_deg=1.3, detector_offset_bins=0.25, detector_pitch_mm=3.1, **GRID)
    image = np.random.default_rng(3).uniform(0, 0.004, geometry.image_shape).astype(np.float32)
    theirs = astra_projection(astra, geometry, name, image)
    difference = np.abs(projected(geometry, image).numpy() - theirs) / theirs.max()
    # ASTRA counts in single precision: where a ray grazes a border it may give some of a pixel to its neighbour.
    assert difference.mean() < 2e-5
    assert difference.max() < 1e-3


def test_a_ray_is_as_long_in_all_pixels_together_as_in_the_image():
    angle = torch.linspace(0.1, 6.1, 60, dtype=torch.float64)
    direction = torch.stack([angle.cos(), angle.sin()], dim=1)
    lengths = exact_entries(Rays(torch.zeros(60, 2, dtype=torch.float64), direction), (40, 60), 2.0).weight.sum(
        dim=1
    )
    chord = torch.minimum(120 / direction[:, 0].abs(), 80 / direction[:, 1].abs())
    assert torch.allclose(lengths, chord, rtol=1e-12)


def test_rays_along_the_axes_and_through_corners():
    """Straight along a row, on the border of two rows, and on the diagonal."""
    root = math.sqrt(0.5)
    rays = Rays(
        torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64),
        torch.tensor([[1.0, 0.0], [-1.0, 0.0], [root, root]], dtype=torch.float64),
    )
    entries = exact_entries(rays, (4, 4), 2.0)
    image = torch.arange(16, dtype=torch.float64)
    sums = (image[entries.pixel.long()] * entries.weight).sum(dim=1)
    below_the_border = 2 * image[8:12].sum()
    expected = torch.stack([2 * image[8:12].sum(), below_the_border, 2 / root * image[[0, 5, 10, 15]].sum()])
    assert torch.allclose(sums, expected)


@pytest.mark.parametrize("kind", [ParallelGeometry, FanFlatGeometry, FanCurvedGeometry])
def test_an_ellipse_phantom_in_closed_form(kind):
    geometry = kind.evenly_spaced(
        12, image_shape=(340, 340), pixel_spacing_mm=1.0, detector_count=120, detector_offset_bins=-0.25
    )
    image = 0.01 * phantom_image(ASYMMETRIC_PHANTOM, geometry, 3)[0, 0]
    exact = 0.01 * phantom_sinogram(ASYMMETRIC_PHANTOM, geometry)[0]
    difference = projected(geometry, image) - exact
    assert float(difference.norm() / exact.norm()) < 0.004


def test_a_bundle_is_averaged_in_intensity():
    """The mean transmission of closed-form rays over bin, spot and view, which is not that of their mean length."""
    geometry = FanCurvedGeometry.evenly_spaced(
        5, image_shape=(340, 340), pixel_spacing_mm=1.0, detector_count=60, detector_pitch_mm=12.0
    )
    image = 0.02 * phantom_image(ASYMMETRIC_PHANTOM, geometry, 3)[0, 0]
    bundle = sub_rays(4, 1.0, math.radians(2))
    signal = PlaneProjector(geometry, bundle).transmission(image[None, None], BEAM)[0]
    angles, fan = np.array(geometry.view_angles_rad), 12.0 / 1085.6
    expected, mean_integral = np.zeros((5, 60)), np.zeros((5, 60))
    for sub in bundle:
        b = (angles + sub.angle_rad)[:, None]
        u = np.stack([np.cos(b), np.sin(b)], axis=-1)
        d = np.stack([-np.sin(b), np.cos(b)], axis=-1)
        gamma = ((np.arange(60) - 29.5 + sub.bin) * fan)[None, :, None]
        element = -595 * d + 1085.6 * (np.cos(gamma) * d + np.sin(gamma) * u)
        source = np.broadcast_to(-595 * d + sub.spot_mm * u, element.shape)
        ray = element - source
        lines = Rays(
            torch.from_numpy(source.reshape(-1, 2).copy()),
            torch.from_numpy((ray / np.linalg.norm(ray, axis=-1, keepdims=True)).reshape(-1, 2)),
        )
        integrals = 0.02 * phantom_line_integrals(ASYMMETRIC_PHANTOM, lines).numpy().reshape(5, 60)
        expected += np.exp(-integrals) / 4
        mean_integral += integrals / 4
    error = np.abs(signal.numpy() - expected).mean()
    assert error < 0.001
    assert error < 0.3 * np.abs(np.exp(-mean_integral) - expected).mean()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_a_bundle_fills_its_bin_evenly_and_is_centred(count):
    bundle = sub_rays(count, 2.0, 0.1)
    strata = (np.arange(count) + 0.5) / count - 0.5
    for values, width in (
        ([s.bin for s in bundle], 1),
        ([s.row for s in bundle], 1),
        ([s.spot_mm for s in bundle], 2.0),
        ([s.angle_rad for s in bundle], 0.1),
    ):
        assert np.sort(values) == pytest.approx(strata * width)


def test_kept_matrices_give_the_same_again():
    geometry = ParallelGeometry.evenly_spaced(9, image_shape=(20, 30), pixel_spacing_mm=3.0)
    image = torch.rand(1, 2, 20, 30, generator=torch.Generator().manual_seed(0)) * 0.01
    kept, anew = PlaneProjector(geometry), PlaneProjector(geometry, kept_bytes=0)
    first = kept.transmission(image, BEAM)
    assert torch.equal(kept.transmission(image, BEAM), first)
    assert torch.equal(anew.transmission(image, BEAM), first)


def test_helix_rays_walk_through_boxes():
    """Every row's ray, sampled 0.005 mm by 0.005 mm through a volume of random boxes."""
    volume = torch.rand(1, 12, 20, 20, generator=torch.Generator().manual_seed(0)) * 0.01
    angles, heights, rows, row_mm = [0.3, 2.0, 4.4], [-7.0, 1.0, 9.3], 4, 7.0
    geometry = FanCurvedGeometry(
        view_angles_rad=tuple(angles),
        detector_count=9,
        detector_pitch_mm=20.0,
        image_shape=(20, 20),
        pixel_spacing_mm=5.0,
        detector_offset_bins=0.25,
    )
    signal = HelixProjector(geometry, heights, rows, row_mm).transmission(Stack(volume, -20.0, 4.0), BEAM)
    t = np.arange(520, 670, 0.005) + 0.0025
    values = volume[0].numpy()
    for view, height in enumerate(heights):
        rays = geometry.rays(view, view + 1)
        for row, slope in enumerate((np.arange(rows) - 1.5) * row_mm / 1085.6):
            k = np.clip(np.floor((height + slope * t + 20) / 4 + 0.5).astype(int), 0, 11)
            for column in range(9):
                x, y = rays.point[column].numpy()[:, None] + t * rays.direction[column].numpy()[:, None]
                i, j = (np.floor(c / 5 + 10).astype(int) for c in (x, y))
                there = (i >= 0) & (i < 20) & (j >= 0) & (j < 20)
                expected = values[k[there], j[there], i[there]].sum() * 0.005 * math.hypot(1, slope)
                # What may differ is the pixel in which it changes slices.
                assert -math.log(signal[view, row, column]) == pytest.approx(expected, abs=0.02)


def test_helix_rays_through_ellipsoids_in_closed_form():
    pixel, thick, heights = 2.0, 2.0, np.arange(-45, 46, 2.0)
    shape = (140, 160)
    slices = [slice_image(BODY, z, shape, pixel, samples=2) for z in heights]
    volume = 0.01 * torch.from_numpy(np.array(slices)).float()
    angles, tables = [0.2, 1.9, 3.3, 5.1], np.array([-14.0, -4.0, 6.0, 16.0])
    geometry = FanCurvedGeometry(
        view_angles_rad=tuple(angles),
        detector_count=70,
        detector_pitch_mm=9.0,
        image_shape=shape,
        pixel_spacing_mm=pixel,
    )
    projector = HelixProjector(geometry, tables.tolist(), 8, 6.0)
    measured = -torch.log(projector.transmission(Stack(volume[None], -45.0, thick), BEAM).double())
    for view, (b, z) in enumerate(zip(angles, tables, strict=True)):
        u, d = np.array([math.cos(b), math.sin(b), 0]), np.array([-math.sin(b), math.cos(b), 0])
        gamma = ((np.arange(70) - 34.5) * 9.0 / 1085.6)[None, :, None]
        rise = ((np.arange(8) - 3.5) * 6.0)[:, None, None] * np.array([0, 0, 1.0])
        source = -595 * d + [0, 0, z]
        ray = 1085.6 * (np.cos(gamma) * d + np.sin(gamma) * u) + rise
        ray = ray / np.linalg.norm(ray, axis=-1, keepdims=True)
        exact = 0.01 * ellipsoid_integrals(BODY, np.broadcast_to(source, ray.shape), ray)
        assert np.linalg.norm(measured[view].numpy() - exact) < 0.012 * np.linalg.norm(exact)
