"""Neighbouring slices: which they are, and means over them."""

import numpy as np
import pytest
import torch

from klip_engine.io.sources import Source, healthy_runs
from klip_engine.scoring.klip import ScoreTerm
from klip_engine.scoring.score_map import over_neighbours, terms_over_neighbours
from klip_engine.stacks import FEWEST_SLICES, REACH_MM, between_neighbours, have_neighbours, standing_alone
from klip_engine.volume import Geometry
from klip_engine.working_grid import WorkingVolume


def test_scans_of_few_or_distant_slices_are_no_stack():
    assert have_neighbours(FEWEST_SLICES, REACH_MM)
    assert not have_neighbours(FEWEST_SLICES - 1, 3.0)
    assert not have_neighbours(100, REACH_MM + 0.1)
    assert have_neighbours(100, np.diff([0.0, 6.0, 12.0, 18.000000004]).mean())  # positions are rounded


def test_only_slices_with_one_on_either_side_lie_between_neighbours():
    stacks = np.array([0, 0, 0, 0, 1, 2, 2])
    assert between_neighbours(stacks).tolist() == [False, True, True, False, False, False, False]
    assert between_neighbours(np.array([5])).tolist() == [False]
    assert between_neighbours(np.array([])).tolist() == []
    assert standing_alone(stacks).tolist() == [False] * 4 + [True] + [False] * 2


def test_the_mean_over_neighbours_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    stacks = np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3])
    values = rng.normal(size=(len(stacks), 2, 4, 5))
    expected = np.empty_like(values)
    for n in range(len(stacks)):
        near = [k for k in (n - 1, n + 1) if 0 <= k < len(stacks) and stacks[k] == stacks[n]]
        expected[n] = (values[n] + values[near].mean(axis=0)) / 2 if near else values[n]
    given = torch.from_numpy(values)
    found = over_neighbours(given, stacks).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_array_equal(given.numpy(), values)  # what is given stays
    np.testing.assert_array_equal(found[3], values[3])
    np.testing.assert_allclose(over_neighbours(torch.ones(4, 3), np.zeros(4, np.int64)), np.ones((4, 3)))


def test_terms_that_do_not_ask_for_their_neighbours_stay_as_they_are():
    density = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    stacks = np.array([0, 0, 0, 1])
    terms = [ScoreTerm(), ScoreTerm(over_neighbours=False), ScoreTerm(unit_quantile=0.5)]
    found = terms_over_neighbours(density, terms, stacks)
    for number in (0, 2):
        torch.testing.assert_close(found[:, number], over_neighbours(density[:, number], stacks))
    assert torch.equal(found[:, 1], density[:, 1])


def _working(count: int) -> WorkingVolume:
    shape = (count, 4, 5)
    ranges = tuple((k, k + 1) for k in range(count))
    geometry = Geometry((5, 4, count), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0))
    return WorkingVolume(np.zeros(shape, np.float32), np.ones(shape, bool), geometry, ranges, 0.0)


@pytest.mark.parametrize(
    ("ranges", "most", "expected"),
    [
        (None, 10, [[5, 6, 7, 8, 9], [20, 21, 22, 23, 24]]),
        (None, 5, [[15, 16, 17, 18, 19]]),
        (None, 8, [[15, 16, 17, 18, 19]]),  # a second run would be too much
        (None, 3, [[15, 16, 17]]),
        (None, 1000, [list(range(n, n + 5)) for n in range(0, 30, 5)]),
        (((3, 9), (20, 25)), 10, [[4, 5, 6, 7, 8], [20, 21, 22, 23, 24]]),
        (((3, 4), (20, 21)), 10, [[3, 4], [20, 21]]),  # nowhere three in a row
        (((7, 7),), 10, [[7]]),
    ],
)
def test_reference_slices_are_taken_in_runs(ranges, most, expected, tmp_path):
    found = healthy_runs(Source(tmp_path, "one", ranges), _working(30), most, 5)
    assert [run.tolist() for run in found] == expected
