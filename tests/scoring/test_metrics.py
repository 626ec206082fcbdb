"""Metrics against their definitions."""

from __future__ import annotations

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

few_levels = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=25)  # many ties


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
    ],
)
def test_what_cannot_be_computed_is_a_usage_error(wrong):
    with pytest.raises(UsageError):
        wrong()
