"""Neighbouring slices: which they are, and means over them."""

import numpy as np
import pytest
import torch

from klip_engine.io.sources import Source, healthy_runs
from klip_engine.scoring.score_map import over_neighbours
from klip_engine.stacks import REACH_MM, between_neighbours, stacks_of
from klip_engine.volume import Geometry, WorkingVolume


def test_slices_in_a_row_are_a_stack_unless_they_lie_too_far_apart():
    slices = np.array([2, 3, 4, 8, 10, 11])
    assert stacks_of(slices, 3.0).tolist() == [0, 0, 0, 1, 2, 2]
    assert stacks_of(slices, REACH_MM).tolist() == [0, 0, 0, 1, 2, 2]
    assert stacks_of(slices, REACH_MM + 0.1).tolist() == [0, 1, 2, 3, 4, 5]
    assert stacks_of(slices[:0], 3.0).tolist() == []


def test_only_slices_with_one_on_either_side_lie_between_neighbours():
    stacks = np.array([0, 0, 0, 0, 1, 2, 2])
    assert between_neighbours(stacks).tolist() == [False, True, True, False, False, False, False]
    assert between_neighbours(np.array([5])).tolist() == [False]


def test_the_mean_over_neighbours_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    stacks = np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3])
    values = rng.normal(size=(len(stacks), 2, 4, 5))
    expected = np.empty_like(values)
    for n in range(len(stacks)):
        near = [k for k in (n - 1, n, n + 1) if 0 <= k < len(stacks) and stacks[k] == stacks[n]]
        expected[n] = np.average(values[near], axis=0, weights=[2 if k == n else 1 for k in near])
    given = torch.from_numpy(values)
    found = over_neighbours(given, stacks).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_array_equal(given.numpy(), values)  # what is given stays
    np.testing.assert_array_equal(found[3], values[3])
    np.testing.assert_allclose(over_neighbours(torch.ones(4, 3), np.zeros(4, np.int64)), np.ones((4, 3)))


def _working(count: int) -> WorkingVolume:
    shape = (count, 4, 5)
    ranges = tuple((k, k + 1) for k in range(count))
    geometry = Geometry((5, 4, count), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0))
    return WorkingVolume(np.zeros(shape, np.float32), np.ones(shape, bool), geometry, ranges, 0.0)


@pytest.mark.parametrize(
    ("ranges", "most", "expected"),
    [
        (None, 10, [6, 7, 8, 9, 10, 19, 20, 21, 22, 23]),
        (None, 5, [13, 14, 15, 16, 17]),
        (None, 8, [6, 7, 8, 9, 20, 21, 22, 23]),  # two runs of four
        (None, 1, [15]),
        (((3, 9), (20, 22)), 10, [3, 4, 5, 6, 7, 8, 9]),  # both runs lie in the first range and overlap
        (((3, 4), (20, 21)), 10, [3, 4, 20, 21]),  # nowhere three in a row
        (((7, 7),), 10, [7]),
    ],
)
def test_reference_slices_are_taken_in_runs(ranges, most, expected, tmp_path):
    found = healthy_runs(Source(tmp_path, "one", ranges), _working(30), most, 5)
    assert found.tolist() == expected
