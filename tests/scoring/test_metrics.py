"""Metrics against their definitions, the published scoring recipe against vectors from the published code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klip_engine.errors import UsageError
from klip_engine.scoring.metrics import (
    auroc,
    average_precision,
    dataset_level_auroc,
    image_level_auroc,
    touched_blocks,
)
from klip_engine.scoring.published import score_map

VECTORS = Path(__file__).parents[1] / "data" / "klip_vectors"
EXPECTED_AUROC = json.loads((VECTORS / "expected_auroc.json").read_text())
IMAGES = range(4)
few_levels = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=25)  # many ties


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    with np.load(VECTORS / "inputs.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored}


@pytest.fixture(scope="module")
def expected_maps() -> dict[str, np.ndarray]:
    with np.load(VECTORS / "expected_maps.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored}


def block_and_window(setting: str) -> tuple[int, tuple[int, int]]:
    block, window = setting.split("|")
    first, last = window[1:].split("-")
    return int(block[1:]), (int(first), int(last))


@settings(max_examples=100, deadline=None)
@given(few_levels, few_levels)
def test_auroc_is_the_share_of_pairs_in_the_right_order_with_ties_counting_half(positive, negative):
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    assert auroc(positive, negative) == pytest.approx(wins / (len(positive) * len(negative)), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(few_levels, few_levels)
def test_average_precision_is_the_sum_of_precision_times_gain_in_recall_over_the_thresholds(positive, negative):
    total, recall = 0.0, 0.0
    for threshold in sorted(set(positive) | set(negative), reverse=True):
        found = sum(p >= threshold for p in positive)
        false = sum(n >= threshold for n in negative)
        total += (found / len(positive) - recall) * found / (found + false)
        recall = found / len(positive)
    assert average_precision(positive, negative) == pytest.approx(total, abs=1e-12)


def test_a_perfect_a_useless_and_a_reversed_score():
    assert auroc([3.0, 4.0], [1.0, 2.0]) == 1.0
    assert auroc([1.0, 1.0], [1.0, 1.0]) == 0.5
    assert auroc([0.0], [1.0, 2.0]) == 0.0
    assert average_precision([3.0, 4.0], [1.0, 2.0]) == 1.0
    assert average_precision([1.0], [1.0, 1.0, 1.0]) == 0.25


def test_a_block_is_positive_if_any_of_its_pixels_is_in_the_lesion():
    mask = np.zeros((4, 6), dtype=bool)
    mask[1, 3] = True
    np.testing.assert_array_equal(touched_blocks(mask, 2), [[False, True, False], [False, False, False]])
    np.testing.assert_array_equal(touched_blocks(mask, 1), mask)


def test_the_image_level_ignores_what_does_not_touch_the_body():
    score = np.array([[9.0, 1.0], [2.0, 3.0]])
    positive = np.array([[False, False], [False, True]])
    body = np.array([[False, True], [True, True]])
    assert image_level_auroc(score, positive, body) == 1.0
    assert image_level_auroc(score, positive, np.ones((2, 2), dtype=bool)) == pytest.approx(2 / 3)


def test_the_dataset_level_compares_the_highest_block_of_each_image():
    healthy = [np.array([[0.0, 5.0]]), np.array([[1.0, 1.0]])]
    anomalous = [np.array([[3.0, 0.0]])]
    body = np.array([[True, False]])
    assert dataset_level_auroc(healthy, anomalous) == 0.5
    assert dataset_level_auroc(healthy, anomalous, healthy_bodies=[body, body], anomalous_bodies=[body]) == 1.0


@pytest.mark.parametrize("setting", EXPECTED_AUROC)
def test_score_maps_equal_the_published_codes(setting, inputs, expected_maps):
    block, window = block_and_window(setting)
    for name in [f"{group}_{image}" for group in ("id", "ood") for image in IMAGES]:
        computed = score_map(inputs[name], block, window)
        assert computed.dtype == np.float32
        np.testing.assert_allclose(computed, expected_maps[f"{name}|{setting}"], rtol=5e-6)


@pytest.mark.parametrize("setting", EXPECTED_AUROC)
def test_aurocs_equal_the_published_codes(setting, inputs):
    block, window = block_and_window(setting)
    healthy = [score_map(inputs[f"id_{image}"], block, window) for image in IMAGES]
    anomalous = [score_map(inputs[f"ood_{image}"], block, window) for image in IMAGES]
    body = touched_blocks(inputs["body"], block)
    per_image = [
        image_level_auroc(anomalous[image], touched_blocks(inputs[f"mask_{image}"], block), body)
        for image in IMAGES
    ]
    expected = EXPECTED_AUROC[setting]
    np.testing.assert_allclose(per_image, expected["image_level"], rtol=1e-9)
    assert np.mean(per_image) == pytest.approx(expected["image_level_mean"], rel=1e-9)
    assert dataset_level_auroc(healthy, anomalous) == pytest.approx(expected["dataset_level"], rel=1e-9)


def test_score_map_takes_a_tensor():
    torch = pytest.importorskip("torch")
    updates = torch.full((4, 3, 2, 4, 4), 2.0)
    np.testing.assert_allclose(score_map(updates, 2, (1, 3)), np.full((2, 2), 2.0**2 * 2 * 4))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: auroc([], [1.0]),
        lambda: auroc([float("nan")], [1.0]),
        lambda: average_precision([1.0], []),
        lambda: image_level_auroc(np.zeros((2, 2)), np.zeros((2, 2), bool), np.ones((2, 2), bool)),
        lambda: image_level_auroc(np.zeros((2, 2)), np.zeros((4, 4), bool), np.ones((2, 2), bool)),
        lambda: dataset_level_auroc([], [np.zeros((2, 2))]),
        lambda: dataset_level_auroc([np.zeros((2, 2))], [np.zeros((2, 2))], healthy_bodies=[]),
        lambda: touched_blocks(np.zeros((5, 4), bool), 2),
        lambda: score_map(np.zeros((4, 1, 1, 4, 4)), 3, (0, 4)),
        lambda: score_map(np.zeros((4, 1, 1, 4, 4)), 2, (2, 5)),
        lambda: score_map(np.zeros((4, 4, 4)), 2, (0, 4)),
    ],
)
def test_what_cannot_be_computed_is_a_usage_error(wrong):
    with pytest.raises(UsageError):
        wrong()
