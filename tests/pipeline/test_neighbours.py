"""Scores of neighbouring slices: with a null of slices among neighbours, alone where there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from klip_engine.body import body_mask
from klip_engine.calibration import (
    calibrate,
    calibrate_scores,
    healthy_reference,
    highest_scores,
    keep_reference,
)
from klip_engine.errors import UsageError
from klip_engine.io.sources import Source
from klip_engine.pipeline import detect
from klip_engine.priors import PriorBundle, ReferenceSlices, load_prior, load_reference
from klip_engine.scoring.score_map import block_maps, slice_maxima
from klip_engine.settings import SCORES, DetectionSettings, SamplingSettings
from klip_engine.slices import NetworkMeter, Watch, score_images
from klip_engine.stacks import between_neighbours
from klip_engine.volume import CTVolume, Geometry
from klip_engine.working_grid import images_of_hu, to_working_grid
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


def _write(volume: CTVolume, path: Path) -> None:
    sitk.WriteImage(volume.geometry.image(volume.hu), str(path))


def test_a_scan_is_scored_with_its_neighbours_and_compared_with_slices_among_neighbours(bundle):
    volume = _scan(9)
    detection = detect(volume, bundle, SETTINGS)
    null = detection.settings["null"]
    source = f"{3 * RUNS} slices of {RUNS} healthy scans and {RUNS} that stand alone"
    assert (null["slices"], null["source"]) == (4 * RUNS, source)
    assert null["neighbours"] is True

    working = to_working_grid(volume, GRID)
    meter = NetworkMeter(bundle.denoiser)
    density = score_images(working.images, bundle, SETTINGS, "cpu", meter, None).density
    alone = block_maps(density, SETTINGS.score.blocks(GRID.pixel_mm))[0]
    for n, (before, after) in {0: (1, 1), 4: (3, 5), 8: (7, 7)}.items():
        expected = (alone[before] + 2 * alone[n] + alone[after]) / 4
        ratio = (detection.working.score[n] / expected)[working.body[n] & (expected > 0)]
        assert ratio.std() < 1e-4 * ratio.mean()  # in units of the null: one number


def test_the_null_among_neighbours_counts_the_slices_between_two_others(bundle):
    settings = replace(SETTINGS, seed=2_000_003)
    both = calibrate_scores(bundle, SETTINGS, SETTINGS.score.variants, "cpu")
    among, alone = both
    assert among.settings["score"]["neighbours"] is True
    assert "neighbours" not in alone.settings["score"]  # keys of scores without neighbours stay what they were
    assert (len(among.maxima), len(alone.maxima)) == (4 * RUNS, 6 * RUNS)

    healthy = _reference(np.repeat(np.arange(2 * RUNS), [5] * RUNS + [1] * RUNS))
    kept = healthy.hu.round().clip(-1024, 3071)
    scored = score_images(images_of_hu(kept), bundle, settings, "cpu", NetworkMeter(bundle.denoiser), None)
    maps = block_maps(scored.density, settings.score.blocks(GRID.pixel_mm))[0]
    middle = [5 * run + n for run in range(RUNS) for n in (1, 2, 3)]
    means = np.stack([(maps[n - 1] + 2 * maps[n] + maps[n + 1]) / 4 for n in middle])
    together, own = slice_maxima(means, healthy.body[middle]), slice_maxima(maps, healthy.body)
    stand_in = np.median(together / own[middle]) * own[-RUNS:]
    expected = np.sort(np.append(together, stand_in)) / np.quantile(together, 0.9)
    np.testing.assert_allclose(among.maxima, expected, rtol=1e-4)


@pytest.mark.parametrize(("count", "spacing_mm"), [(1, 4.0), (1, 7.0), (7, 4.0), (8, 7.0)])
def test_slices_without_neighbours_stand_alone(bundle, count, spacing_mm):
    detection = detect(_scan(count, spacing_mm), bundle, SETTINGS)
    assert detection.settings["score"]["neighbours"] is True  # what was asked for, for `--settings`
    assert detection.settings["null"]["neighbours"] is False
    assert detection.settings["null"]["slices"] == 6 * RUNS
    why = "7 mm apart" if count == 8 else "Fewer than 8 slices"
    assert any(why in notice and "finds less" in notice for notice in detection.notices)


def test_a_prior_whose_healthy_slices_have_no_neighbours_scores_slices_alone(bundle, tmp_path):
    keep_reference(bundle, _reference(np.repeat([0, 1], [7, 9]) * 100 + np.arange(16)))
    detection = detect(_scan(8), bundle, SETTINGS)
    assert detection.settings["null"]["neighbours"] is False
    assert any("too few healthy slices with neighbours" in notice for notice in detection.notices)
    drawn = load_prior(save_wiener_prior(tmp_path / "drawn", GRID))
    null = calibrate(drawn, SETTINGS, "cpu", count=8)
    assert "neighbours" not in null.settings["score"]


def test_too_few_slices_among_neighbours_are_refused(bundle):
    with pytest.raises(UsageError, match="among 6 of the healthy slices too few lie between two others"):
        calibrate(bundle, SETTINGS, "cpu", count=6)


def test_nulls_of_kept_slices_are_those_of_the_slices_that_were_given(bundle, tmp_path):
    path = tmp_path / "wide.nrrd"
    hu = torso(20)[:, 20:-20, 30:-30]  # the body reaches beyond what was scanned: its border is not looked at
    angle = np.radians(20)
    turn = (np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1)
    _write(CTVolume(hu, Geometry(hu.shape[::-1], (4.0, 4.0, 4.0), (-120.0, -110.0, 33.0), turn)), path)
    given = healthy_reference([Source(path, "one")], GRID, 20, Watch())
    assert (given.hu[~given.body] != -1000).any()
    keep_reference(bundle, given)
    fresh, kept = (calibrate(bundle, SETTINGS, "cpu", healthy=one) for one in (given, None))
    assert fresh.settings == kept.settings
    assert fresh.maxima == kept.maxima


def test_nulls_of_patients_seen_are_raised_by_what_is_kept_with_them_and_those_of_others_are_not(bundle):
    plain = calibrate(bundle, SETTINGS, "cpu")
    slices = load_reference(bundle.folder, GRID.shape)
    keep_reference(bundle, replace(slices, unseen={"klip+neighbours": (2.0, 1.5), "klip": (9.0, 1.0)}))
    raised = calibrate(bundle, SETTINGS, "cpu")
    assert raised.scales == plain.scales
    middle = np.median(plain.maxima)
    np.testing.assert_allclose(raised.maxima, 2 * middle * (np.array(plain.maxima) / middle) ** 1.5, rtol=1e-6)
    assert raised.settings["healthy"] != plain.settings["healthy"]
    assert calibrate(bundle, SETTINGS, "cpu", healthy=slices).maxima == plain.maxima


def test_other_slices_are_scored_in_the_units_of_a_null(bundle):
    slices = load_reference(bundle.folder, GRID.shape)
    null = calibrate(bundle, SETTINGS, "cpu")
    again, alone = highest_scores(
        bundle, SETTINGS, [SETTINGS.score, SETTINGS.score.alone], [null, null], "cpu", slices
    )
    np.testing.assert_allclose(np.sort(again), null.maxima, rtol=1e-6)
    assert (len(again), len(alone)) == (4 * RUNS, 6 * RUNS)
    halved = replace(null, scales=tuple(tuple(2 * one for one in places) for places in null.scales))
    half = highest_scores(bundle, SETTINGS, [SETTINGS.score], [halved], "cpu", slices)[0]
    np.testing.assert_allclose(half, again / 2, rtol=1e-5)


def test_many_slices_of_each_scan_are_kept_in_runs_that_can_be_thinned(bundle, tmp_path):
    path = tmp_path / "long.nrrd"
    _write(_scan(60), path)
    far = tmp_path / "far.nrrd"
    _write(_scan(20, 7.0), far)
    given = healthy_reference([Source(path, "one"), Source(far, "two")], GRID, 1000, Watch())
    assert np.unique(given.stack, return_counts=True)[1].tolist() == [5] * 12 + [1] * 20
    assert between_neighbours(given.whole_stacks(40).stack).sum() >= 8
