"""Scores of neighbouring slices: with a null of slices among neighbours, alone where there are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from klip_engine.calibration import calibrate, calibrate_scores, keep_reference
from klip_engine.errors import UsageError
from klip_engine.pipeline import detect
from klip_engine.priors import PriorBundle, ReferenceSlices, load_prior
from klip_engine.scoring.score_map import block_maps, slice_maxima
from klip_engine.settings import SCORES, DetectionSettings, SamplingSettings
from klip_engine.slices import NetworkMeter, score_images
from klip_engine.volume import CTVolume, Geometry, body_mask, images_of_hu, to_working_grid
from tests.conftest import save_wiener_prior, torso
from tests.pipeline.conftest import GRID

SETTINGS = DetectionSettings(
    sampling=SamplingSettings(steps=4, samples=1, antithetic=False),
    score=replace(SCORES["klip"], neighbours=True),
    device="cpu",
)
RUNS = 3


def _reference(stack: np.ndarray) -> ReferenceSlices:
    rng = np.random.default_rng(1)
    hu = np.full((len(stack), *GRID.shape), -1000, dtype=np.float32)
    hu[:, 20:60, 20:75] = 40 + rng.normal(0, 20, (len(stack), 40, 55))
    body = np.concatenate([body_mask(one[None], GRID.pixel_mm) for one in hu])
    return ReferenceSlices(hu, body, stack, stack)


@pytest.fixture
def bundle(tmp_path) -> PriorBundle:
    """With three stacks of five healthy slices beside it, and three slices that stand alone."""
    prior = load_prior(save_wiener_prior(tmp_path / "bundle", GRID))
    keep_reference(prior, _reference(np.repeat(np.arange(2 * RUNS), [5] * RUNS + [1] * RUNS)))
    return prior


def _scan(count: int, spacing_mm: float = 4.0) -> CTVolume:
    return CTVolume(torso(count), Geometry((120, 96, count), (4.0, 4.0, spacing_mm), (-240, -190, 33)))


def test_a_scan_is_scored_with_its_neighbours_and_compared_with_slices_among_neighbours(bundle):
    volume = _scan(5)
    detection = detect(volume, bundle, SETTINGS)
    assert detection.settings["score"]["neighbours"] is True
    null = detection.settings["null"]
    assert (null["slices"], null["source"]) == (3 * RUNS, f"{3 * RUNS} slices of {RUNS} healthy scans")

    working = to_working_grid(volume, GRID)
    meter = NetworkMeter(bundle.denoiser)
    density = score_images(working.images, bundle, SETTINGS, "cpu", meter, None).density
    alone = block_maps(density, SETTINGS.score.blocks(GRID.pixel_mm))[0]
    weights = {0: [2, 1, 0, 0, 0], 2: [0, 1, 2, 1, 0], 4: [0, 0, 0, 1, 2]}
    for n, of_slice in weights.items():
        expected = np.average(alone, axis=0, weights=of_slice)
        ratio = (detection.working.score[n] / expected)[working.body[n] & (expected > 0)]
        assert ratio.std() < 1e-4 * ratio.mean()  # in units of the null: one number


def test_the_null_among_neighbours_counts_the_slices_between_two_others(bundle):
    settings = replace(SETTINGS, seed=2_000_003)
    both = calibrate_scores(bundle, SETTINGS, SETTINGS.score.variants, "cpu")
    among, alone = both
    assert among.settings["score"]["neighbours"] is True
    assert "neighbours" not in alone.settings["score"]  # keys of scores without neighbours stay what they were
    assert (len(among.maxima), len(alone.maxima)) == (3 * RUNS, 6 * RUNS)

    healthy = _reference(np.repeat(np.arange(2 * RUNS), [5] * RUNS + [1] * RUNS))
    kept = healthy.hu.round().clip(-1024, 3071)
    scored = score_images(images_of_hu(kept), bundle, settings, "cpu", NetworkMeter(bundle.denoiser), None)
    maps = block_maps(scored.density, settings.score.blocks(GRID.pixel_mm))[0]
    middle = [5 * run + n for run in range(RUNS) for n in (1, 2, 3)]
    means = np.stack([(maps[n - 1] + 2 * maps[n] + maps[n + 1]) / 4 for n in middle])
    expected = np.sort(slice_maxima(means, healthy.body[middle]))
    np.testing.assert_allclose(among.maxima, expected / np.quantile(expected, 0.9), rtol=1e-4)


@pytest.mark.parametrize(("count", "spacing_mm"), [(1, 4.0), (2, 4.0), (4, 7.0)])
def test_slices_without_neighbours_stand_alone(bundle, count, spacing_mm):
    detection = detect(_scan(count, spacing_mm), bundle, SETTINGS)
    assert detection.settings["score"]["neighbours"] is False
    assert detection.settings["null"]["slices"] == 6 * RUNS
    told = any("7 mm apart" in notice for notice in detection.notices)
    assert told == (spacing_mm == 7.0)


def test_a_prior_whose_healthy_slices_have_no_neighbours_scores_slices_alone(bundle, tmp_path):
    keep_reference(bundle, _reference(np.repeat([0, 1], [7, 9]) * 100 + np.arange(16)))
    assert detect(_scan(4), bundle, SETTINGS).settings["score"]["neighbours"] is False
    drawn = load_prior(save_wiener_prior(tmp_path / "drawn", GRID))
    null = calibrate(drawn, SETTINGS, "cpu", count=8)
    assert "neighbours" not in null.settings["score"]


def test_too_few_slices_among_neighbours_are_refused(bundle):
    with pytest.raises(UsageError, match="too few lie between two others"):
        calibrate(bundle, SETTINGS, "cpu", count=6)
