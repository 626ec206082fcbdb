"""What lies beside the patient, found from few views; held to closed forms of ellipsoids."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from klip_engine.measured_scan import measured_scanner
from klip_engine.operators import CTOperator
from klip_engine.scans import even_images, hu_images, reconstruct, to_slices
from klip_engine.scans.total_variation import TV_WEIGHT
from klip_engine.volume import Geometry
from klip_engine.working_grid import WorkingGrid, to_working_grid
from tests.projections.scanner import BODY, MU_WATER, Ellipsoid, parallel_scan, slice_image

TABLE = (Ellipsoid((0, 150, 0), (160, 9, 400), 0.9),)
SIDE, PIXEL_MM = 96, 5.0
CORNER = -(SIDE - 1) / 2 * PIXEL_MM
PLANE = Geometry((SIDE, SIDE, 1), (PIXEL_MM, PIXEL_MM, 1.0), (CORNER, CORNER, 0.0))
MODEL_VARIANCE = (PIXEL_MM / 3) ** 2
HALF_TURN = np.pi * np.arange(24) / 24


@pytest.fixture(scope="module")
def scan():
    return parallel_scan(BODY + TABLE, angles=HALF_TURN, rows=1, columns=240, pitch=2.0)


@pytest.fixture(scope="module")
def slices(scan):
    return to_slices(scan)


@pytest.fixture(scope="module")
def image(slices):
    return even_images(slices, PLANE, MODEL_VARIANCE)[0]


def test_beside_the_body_24_views_show_the_table_and_no_streaks(slices, image):
    truth = slice_image(BODY + TABLE, 0.0, (SIDE, SIDE), PIXEL_MM)
    outside = slice_image(BODY[:1], 0.0, (SIDE, SIDE), PIXEL_MM) == 0
    back_projected = 1 + hu_images(slices, PLANE)[0] / 1000
    error, streaks = ((one - truth)[outside].std() for one in (image, back_projected))
    assert error < 0.35 * streaks
    assert (image >= 0).all()


def test_it_is_lower_than_the_truth_in_what_it_minimises(slices, image):
    """The truth has its own misfit to pixels, so the minimum lies below it, and far below the first guess."""
    operator = CTOperator(slices.on_grid((SIDE, SIDE), PIXEL_MM, (0.0, 0.0)))
    variance = 1 / (slices.weights[0] * MU_WATER**2) + MODEL_VARIANCE

    def objective(picture):
        seen = operator.forward(torch.from_numpy(picture.astype(np.float32))[None, None])[0].numpy()
        misfit = (((seen - slices.line_integrals[0] / MU_WATER) ** 2) / variance).sum() / 2
        across = np.diff(picture, axis=1, append=picture[:, -1:])
        down = np.diff(picture, axis=0, append=picture[-1:])
        return misfit + TV_WEIGHT * np.hypot(across, down).sum()

    truth = slice_image(BODY + TABLE, 0.0, (SIDE, SIDE), PIXEL_MM)
    first = np.maximum(1 + hu_images(slices, PLANE)[0] / 1000, 0)
    assert objective(image) < objective(truth)
    assert objective(image) < 0.2 * objective(first)


def test_without_the_table_the_data_are_those_of_the_body(slices):
    """Of 24 views: as near to the body's own pixels as the edges within them allow."""
    working = to_working_grid(reconstruct(slices), WorkingGrid((80, 96), PIXEL_MM, 3.0))
    working, scanner = measured_scanner(slices, working)
    middle = working.geometry.to_lps((95 / 2, 79 / 2, 0))
    body = slice_image(BODY, 0.0, (80, 96), PIXEL_MM, centre=tuple(middle[:2])) * working.body[0]
    own = scanner.operator.forward(torch.from_numpy(body.astype(np.float32) - 1)[None, None]).numpy()
    assert (scanner.data - own).std() < 2 * MODEL_VARIANCE**0.5
    whole = slice_image(BODY + TABLE, 0.0, (80, 96), PIXEL_MM, centre=tuple(middle[:2]))
    with_table = scanner.operator.forward(torch.from_numpy(whole.astype(np.float32) - 1)[None, None]).numpy()
    assert (with_table - own).std() > 15


@pytest.mark.parametrize(("views", "own"), [(24, True), (120, False)])
def test_of_few_views_the_body_has_the_outline_of_these_images(views, own):
    """Within a hundredth of the closed form's pixels; of many views the outline stays what it was."""
    angles = np.pi * np.arange(views) / views
    slices = to_slices(parallel_scan((*BODY[:1], *BODY[3:], *TABLE), angles=angles, columns=240, pitch=2.0))
    first = to_working_grid(reconstruct(slices), WorkingGrid((80, 96), PIXEL_MM, 3.0))
    first.body[:, 38:44, :] = False  # a gash, as streaks cut it
    outlined, _ = measured_scanner(slices, first)
    middle = first.geometry.to_lps((95 / 2, 79 / 2, 0))
    truth = slice_image(BODY[:1], 0.0, (80, 96), PIXEL_MM, centre=tuple(middle[:2])) >= 0.6
    wrong = (outlined.body[0] != truth).mean() / truth.mean()
    assert (wrong < 0.01) == own
    assert (outlined.hu[~outlined.body] == -1000).all() or not own


def test_rays_that_were_not_measured_count_for_nothing(scan, image):
    weights = np.full_like(scan.line_integrals, 1e5)
    weights[:, :, 100:104] = 0
    found = []
    for rubbish in (0.0, 1e4):
        data = np.where(weights > 0, scan.line_integrals, np.float32(rubbish))
        slices = to_slices(dataclasses.replace(scan, line_integrals=data, weights=weights))
        found.append(even_images(slices, PLANE, MODEL_VARIANCE)[0])
    assert np.array_equal(*found)
    assert (found[0] - image).std() < 0.1


def test_of_many_views_some_are_enough(image):
    many = to_slices(parallel_scan(BODY + TABLE, angles=np.pi * np.arange(180) / 180, columns=240, pitch=2.0))
    found = even_images(many, PLANE, MODEL_VARIANCE)[0]
    truth = slice_image(BODY + TABLE, 0.0, (SIDE, SIDE), PIXEL_MM)
    assert (found - truth).std() < (image - truth).std()
