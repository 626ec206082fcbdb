"""Bootstrap intervals and FROC against closed forms and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klip_engine.errors import UsageError
from klip_engine.evaluation.measures import calibration_figures, kind_figures, measure_slice
from klip_engine.evaluation.statistics import Bootstrap
from klip_engine.scoring.metrics import auroc, froc_sensitivity, peaks, roc_curve, touching_blocks

levels = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(levels, st.lists(st.integers(0, 6).map(float), max_size=20), st.integers(1, 8), st.floats(0, 4))
def test_froc_is_the_best_threshold_that_keeps_the_false_regions_within_the_rate(lesions, false, slices, rate):
    best = 0.0
    for threshold in [*(v + d for v in {*lesions, *false} for d in (-0.5, 0.0, 0.5))]:
        if sum(v >= threshold for v in false) / slices <= rate + 1e-12:
            best = max(best, sum(v >= threshold for v in lesions) / len(lesions))
    assert froc_sensitivity(lesions, false, slices, [rate]) == [pytest.approx(best)]


def test_a_lesion_that_nothing_marks_is_never_found():
    assert froc_sensitivity([-math.inf, 3.0], [], 2, [0.5, 100.0]) == [0.5, 0.5]


@settings(max_examples=60, deadline=None)
@given(levels, levels)
def test_the_area_under_the_roc_polygon_is_the_auroc(positive, negative):
    false_rate, true_rate = roc_curve(positive, negative)
    area = float(((true_rate[1:] + true_rate[:-1]) / 2 * np.diff(false_rate)).sum())
    assert (false_rate[0], true_rate[0], false_rate[-1], true_rate[-1]) == (0, 0, 1, 1)
    assert area == pytest.approx(auroc(positive, negative))


def test_peaks_are_the_greedy_maxima_no_two_within_the_radius():
    rng = np.random.default_rng(0)
    score, body = rng.normal(size=(24, 31)), rng.random((24, 31)) < 0.8
    for radius in (1.0, 2.5, 4.0):
        places, values = peaks(score, body, radius, limit=1000)
        left = {(y, x): score[y, x] for y, x in np.argwhere(body)}
        expected = []
        while left:
            best = max(left, key=left.get)
            expected.append(best)
            left = {p: v for p, v in left.items() if math.dist(p, best) > radius}
        assert [tuple(p) for p in places] == expected
        np.testing.assert_array_equal(values, [score[p] for p in expected])
    assert len(peaks(score, body, 2.0, limit=3)[0]) == 3
    assert len(peaks(score, np.zeros_like(body), 2.0)[0]) == 0


def test_a_sliding_block_touches_what_lies_in_its_square():
    mask = np.zeros((7, 9), dtype=bool)
    mask[3, 0] = True
    expected = np.zeros_like(mask)
    expected[2:5, 0:2] = True
    np.testing.assert_array_equal(touching_blocks(mask, 3), expected)
    np.testing.assert_array_equal(touching_blocks(mask, 1), mask)


def test_the_interval_covers_a_known_auroc_about_as_often_as_it_says():
    # slices of a patient share an offset; positives and negatives of unit variance, d' = 1: AUROC = Phi(1 / sqrt 2)
    truth = 0.5 * (1 + math.erf(0.5))
    rng = np.random.default_rng(5)
    patients = [str(p) for p in range(12) for _ in range(6)]
    covered = 0
    for run in range(60):
        offset = np.repeat(rng.normal(0, 0.6, 12), 6)
        noise = math.sqrt(1 - 0.6**2)
        negative = offset + noise * rng.normal(size=72)
        positive = 1 + offset + noise * rng.normal(size=72)
        interval = Bootstrap(200, seed=run).interval(
            lambda n, p, a=negative, b=positive: auroc(b[p], a[n]), patients, patients
        )
        assert interval.low <= interval.value <= interval.high
        assert interval.patients == 12
        covered += interval.low <= truth <= interval.high
    assert covered >= 52  # of 60; 57 expected at 95 %, fewer than 52 has a chance of about 1 % even at 93 %


def test_patients_that_differ_make_the_interval_wider_than_slices_alone():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=10), 20) + 0.1 * rng.normal(size=200)
    grouped = Bootstrap(300).interval(lambda i: float(values[i].mean()), [str(i // 20) for i in range(200)])
    alone = Bootstrap(300).interval(lambda i: float(values[i].mean()), [str(i) for i in range(200)])
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
    again = Bootstrap(300).interval(lambda i: float(values[i].mean()), [str(i // 20) for i in range(200)])
    assert again == grouped


def test_a_group_present_in_one_patient_alone_is_never_lost():
    interval = Bootstrap(50).interval(lambda a, b: float(len(b) > 0), ["1", "2", "3"], ["2"])
    assert (interval.low, interval.high, interval.patients) == (1.0, 1.0, 3)


def made_slices(rng: np.random.Generator, strength: float, lesion: bool, count: int) -> list:
    body = np.ones((32, 32), dtype=bool)
    made = []
    for _ in range(count):
        mask = np.zeros((32, 32), dtype=bool)
        if lesion:
            y, x = rng.integers(4, 26, 2)
            mask[y : y + 3, x : x + 3] = True
        score = rng.random((32, 32)) + strength * mask
        made.append(measure_slice(score, float(score.max()), float(rng.random()), body, mask, 1, 3.0))
    return made


def test_a_perfect_score_gives_one_and_a_random_one_about_a_half():
    rng = np.random.default_rng(0)
    patients = [str(i % 6) for i in range(120)]
    healthy = made_slices(rng, 0.0, False, 120)
    perfect = kind_figures(healthy, made_slices(rng, 5.0, True, 120), patients, patients, Bootstrap(30))
    for figure in (perfect["image_auroc"], perfect["dataset_auroc"], perfect["average_precision"]):
        assert figure["value"] == figure["low"] == figure["high"] == 1.0
    assert {rate: one["value"] for rate, one in perfect["froc"].items()} == {"0.5": 1.0, "1": 1.0, "2": 1.0}
    random = kind_figures(healthy, made_slices(rng, 0.0, True, 120), patients, patients, Bootstrap(30))
    for name in ("image_auroc", "dataset_auroc"):
        assert random[name]["value"] == pytest.approx(0.5, abs=0.08)
        assert random[name]["low"] < 0.5 < random[name]["high"]
    assert random["counts"]["patients"] == 6


def test_uniform_p_values_are_observed_as_often_as_they_say():
    rng = np.random.default_rng(3)
    patients = [str(i % 5) for i in range(1000)]
    rows = calibration_figures(made_slices(rng, 0.0, False, 1000), patients, Bootstrap(20))
    for row in rows:
        assert row["observed"]["value"] == pytest.approx(row["nominal"], abs=0.04)
        assert np.mean(list(row["patients"].values())) == pytest.approx(row["observed"]["value"])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: froc_sensitivity([], [1.0], 1, [1.0]),
        lambda: froc_sensitivity([1.0], [math.nan], 1, [1.0]),
        lambda: froc_sensitivity([1.0], [], 0, [1.0]),
        lambda: froc_sensitivity([1.0], [], 1, [-1.0]),
        lambda: peaks(np.zeros((2, 2)), np.zeros((3, 3), bool), 1.0),
        lambda: touching_blocks(np.zeros((2, 2), bool), 2),
        lambda: Bootstrap(0),
        lambda: Bootstrap(level=1.0),
        lambda: Bootstrap(3).interval(lambda i: 0.0, []),
    ],
)
def test_what_cannot_be_computed_is_a_usage_error(wrong):
    with pytest.raises(UsageError):
        wrong()
