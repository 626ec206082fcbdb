"""What is usual, and what is marked because it is not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from klip_engine.errors import PriorError
from klip_engine.scoring.null import find_null, null_from_scores, settings_key
from klip_engine.scoring.regions import find_regions
from klip_engine.scoring.score_map import block_maps, block_scales, combine_blocks, local_places, slice_maxima


def test_the_threshold_keeps_the_rate_of_false_alarms():
    """On fresh draws of the same distribution the share above the threshold is at most the rate, about."""
    rng = np.random.default_rng(0)
    for rate in (0.01, 0.05, 0.2):
        shares = []
        for _ in range(200):
            null = null_from_scores(rng.gumbel(size=300), [[1.0]], {})
            shares.append((rng.gumbel(size=300) > null.threshold(rate)).mean())
        assert 0.6 * rate < np.mean(shares) <= 1.1 * rate


def test_what_is_above_the_threshold_has_a_p_value_within_the_rate_and_what_is_not_has_not():
    null = null_from_scores(np.arange(99), [[1.0]], {})
    for rate in (0.01, 0.013, 0.05, 0.5, 0.99):
        threshold = null.threshold(rate)
        assert null.p_value(threshold + 1e-9) <= rate
        assert null.p_value(threshold) > rate
    assert null.p_value(1e9) == 0.01
    assert null.p_value(-1e9) == 1.0


def test_a_rate_finer_than_the_null_gets_its_highest_score():
    null = null_from_scores(np.arange(50), [[1.0]], {})
    assert null.threshold(1e-6) == 49
    assert null.finest_rate == pytest.approx(1 / 51)


def test_a_null_is_kept_under_its_settings_and_only_found_for_them(tmp_path):
    settings = {"prior": "abc", "score": {"window": [0.1, "infinity"]}}
    null = null_from_scores([3.0, 1.0, 2.0], [[0.5], [2.0]], settings)
    path = null.save(tmp_path / "null")
    assert path.name == f"{settings_key(settings)}.json"
    assert find_null(tmp_path / "null", settings) == null
    assert find_null(tmp_path / "nowhere", settings) is None
    assert find_null(tmp_path / "null", settings | {"prior": "abd"}) is None
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("content", ["{", '{"schema": "klip-null/1"}', '{"schema": "other"}'])
def test_a_damaged_null_gives_a_sentence(tmp_path, content):
    settings = {"prior": "abc"}
    path = null_from_scores([1.0], [[1.0]], settings).save(tmp_path)
    path.write_text(content)
    with pytest.raises(PriorError, match="damaged.*calibrate again"):
        find_null(tmp_path, settings)


def test_a_null_without_finite_scores_is_refused(tmp_path):
    path = null_from_scores([1.0], [[1.0]], {}).save(tmp_path)
    record = json.loads(path.read_text()) | {"maxima": [float("nan")]}
    path.write_text(json.dumps(record))
    with pytest.raises(PriorError):
        find_null(tmp_path, {})


def test_regions_are_the_components_scipy_finds_strongest_first():
    rng = np.random.default_rng(4)
    score = ndimage.gaussian_filter(rng.normal(size=(6, 40, 50)), 1.5).astype(np.float32)
    body = np.ones(score.shape, bool)
    body[:, :, :8] = False
    threshold = float(np.quantile(score, 0.95))
    labels, regions = find_regions(score, body, threshold)
    mask = (score > threshold) & body
    expected, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert len(regions) == count > 3
    assert np.array_equal(labels > 0, mask)
    assert [r.score for r in regions] == sorted((r.score for r in regions), reverse=True)
    for region in regions:
        same = labels == region.label
        assert len(np.unique(expected[same])) == 1
        z, y, x = (np.average(axis, weights=score[same]) for axis in np.nonzero(same))
        np.testing.assert_allclose(region.centroid, (x, y, z), rtol=1e-5)
        assert region.voxels == same.sum()
        assert region.score == score[same].max()
        assert (region.first_slice, region.last_slice) == tuple(np.nonzero(same)[0][[0, -1]])


def test_no_region_gives_an_empty_map():
    labels, regions = find_regions(np.zeros((2, 3, 4), np.float32), np.ones((2, 3, 4), bool), 0.5)
    assert regions == []
    assert labels.dtype == np.uint16
    assert not labels.any()


def test_block_sizes_are_brought_to_one_scale():
    density = torch.zeros(5, 30, 30)
    density[:, 10, 10] = torch.arange(1.0, 6)  # a point: strong for small blocks, weak for large ones
    body = np.ones((5, 30, 30), bool)
    maps = block_maps(density[:, None], [1, 5])
    scales = block_scales(maps, body, [0.5, 0.5])
    np.testing.assert_allclose(scales, [[3], [3 / 25]], rtol=1e-5)
    np.testing.assert_allclose(block_scales(maps, body, [1.0, 0.25]), [[5], [2 / 25]], rtol=1e-5)
    score = combine_blocks(maps, scales)
    np.testing.assert_allclose(slice_maxima(score, body), np.arange(1, 6) / 3, rtol=1e-5)
    body[:, 10, 10] = False
    np.testing.assert_allclose(slice_maxima(combine_blocks(maps[:1], scales[:1]), body), 0)


def test_each_place_is_measured_against_its_own_null_slices():
    maps = np.ones((1, 4, 8, 8), np.float32)
    places = np.zeros((4, 8, 8), np.uint8)
    places[:2, :, :4] = 1  # two slices show the second place, where the scores are a tenth
    maps[0, 0, :, :4], maps[0, 1, :, :4] = 0.1, 0.3
    body = np.ones((4, 8, 8), bool)
    scales = block_scales(maps, body, [0.5], places)
    np.testing.assert_allclose(scales, [[1.0, 0.2]], rtol=1e-6)
    score = combine_blocks(maps, scales, places)
    np.testing.assert_allclose(score[0, 0], [0.5] * 4 + [1] * 4, rtol=1e-6)
    unseen = np.full((4, 8, 8), 2, np.uint8)  # a place no null slice shows
    np.testing.assert_allclose(combine_blocks(maps, scales, unseen), combine_blocks(maps, scales, unseen - 1))


def test_a_place_outside_the_body_takes_the_scale_of_the_body():
    maps = np.full((1, 2, 4, 4), 2.0, np.float32)
    places = np.zeros((2, 4, 4), np.uint8)
    places[:, 0] = 1
    body = np.ones((2, 4, 4), bool)
    body[:, 0] = False
    assert block_scales(maps, body, [0.9], places) == ((2.0, 2.0),)


def test_a_nodule_lies_in_the_lung_and_fat_does_not():
    hu = np.full((1, 64, 64), 40.0, np.float32)
    hu[0, 16:48, 16:48] = -800
    hu[0, 30:34, 30:34] = 40  # 12 mm on a 3 mm grid
    hu[0, 56:60, 4:60] = -100
    places = local_places(hu, (-400,), 3.0)[0]
    assert (places[30:34, 30:34] == 0).all()
    assert (places[56:60, 4:60] == 1).all()
    assert (places[:8] == 1).all()


def test_a_scan_that_scores_higher_everywhere_gets_a_null_of_its_own_level():
    rng = np.random.default_rng(0)
    null = null_from_scores(rng.gamma(4.0, size=400), [[1.0]], {})
    scan = 2 * rng.gamma(4.0, size=200)  # the same distribution, twice as high
    marked = [np.mean([one.p_value(score) <= 0.1 for score in scan]) for one in (null, null.adapted_to(scan))]
    assert marked[0] > 0.3
    assert marked[1] == pytest.approx(0.1, abs=0.05)
    lesions = np.concatenate([scan, np.full(60, 100.0)])  # in a quarter of the slices
    assert null.adapted_to(lesions).threshold(0.05) < 40
    assert null.adapted_to(np.concatenate([scan, np.zeros(300)])) == null.adapted_to(scan)  # slices without body


def test_few_slices_say_little_about_a_scans_level_and_no_level_is_without_bound():
    null = null_from_scores(np.arange(1.0, 100), [[1.0]], {})
    assert null.adapted_to([400.0] * 7) is null
    few, many = null.adapted_to([100.0] * 8), null.adapted_to([100.0] * 800)
    assert few.scan_factor == pytest.approx(2**0.5)
    assert many.scan_factor == pytest.approx(2, rel=0.01)
    assert null.adapted_to([1e6] * 50).scan_factor == 3
    assert null.adapted_to([1e-6] * 50).scan_factor == pytest.approx(1 / 3)
    assert few.identity()["scan_factor"] == pytest.approx(1.4142)


def test_a_null_of_patients_seen_is_raised_to_those_unseen():
    """Log-normal scores stay log-normal: their median rises by the level, their deviation by the spread."""
    z = np.random.default_rng(3).normal(size=4001)
    seen = np.exp(0.2 + 0.3 * z)
    null = null_from_scores([0.0, *seen], [[1.0]], {}, "slices")
    raised = null.raised(1.6, 1.4)
    np.testing.assert_allclose(np.median(raised.maxima[1:]), 1.6 * np.median(seen), rtol=1e-6)
    for rate in (0.05, 0.2, 0.5):
        expected = 1.6 * np.median(seen) * (np.quantile(seen, 1 - rate) / np.median(seen)) ** 1.4
        np.testing.assert_allclose(np.quantile(raised.maxima[1:], 1 - rate), expected, rtol=1e-3)
    others = np.exp(0.2 + np.log(1.6) + 0.3 * 1.4 * np.random.default_rng(4).normal(size=4000))
    for rate in (0.05, 0.2):
        assert np.mean([null.p_value(score) <= rate for score in others]) > 2 * rate
        assert abs(np.mean([raised.p_value(score) <= rate for score in others]) - rate) < 0.02
    assert raised.maxima[0] == 0.0
    assert raised.source == (
        "slices, their scores raised 1.6 times and spread 1.4 times, as patients unseen in training score"
    )
    assert (
        null.raised(1.6, 1.0).source
        == "slices, their scores raised 1.6 times, as patients unseen in training score"
    )
    assert null.raised(1.0, 1.0) is null
    assert null_from_scores([0.0, 0.0], [[1.0]], {}).raised(1.6, 1.4).maxima == (0.0, 0.0)
