"""The published scoring recipe against vectors from the published code: the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from klip_engine.errors import UsageError
from klip_engine.samplers import Step
from klip_engine.scoring.metrics import dataset_level_auroc, image_level_auroc, touched_blocks
from klip_engine.scoring.published import RunningScore, score_map

VECTORS = Path(__file__).parents[1] / "data" / "klip_vectors"
EXPECTED_AUROC = json.loads((VECTORS / "expected_auroc.json").read_text())
IMAGES = range(4)
NAMES = [f"{group}_{image}" for group in ("id", "ood") for image in IMAGES]


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


def step(update: np.ndarray | None) -> Step:
    nothing = torch.zeros(1)
    return Step(1.0, nothing, nothing, update=None if update is None else torch.from_numpy(update))


@pytest.mark.parametrize("setting", EXPECTED_AUROC)
def test_score_maps_have_the_bits_of_the_published_codes(setting, inputs, expected_maps):
    block, window = block_and_window(setting)
    for name in NAMES:
        computed = score_map(inputs[name], block, window)
        assert computed.dtype == np.float32
        np.testing.assert_array_equal(computed, expected_maps[f"{name}|{setting}"])


@pytest.mark.parametrize("setting", EXPECTED_AUROC)
def test_updates_taken_as_a_sampler_yields_them_give_the_same_bits(setting, inputs, expected_maps):
    """All eight images at once, one step after the other; a step that keeps no update does not count."""
    block, window = block_and_window(setting)
    running = RunningScore(block, window, slices=len(NAMES), samples=2)
    together = np.concatenate([inputs[name] for name in NAMES], axis=1).astype(np.float32)
    for update in together:
        running.add_step(step(None))
        running.add_step(step(update))
    for computed, name in zip(running.maps(), NAMES, strict=True):
        np.testing.assert_array_equal(computed, expected_maps[f"{name}|{setting}"])


@pytest.mark.parametrize("setting", EXPECTED_AUROC)
def test_aurocs_count_the_same_pairs_as_the_published_codes(setting, inputs):
    """An AUROC is a number of half pairs over all pairs: the numbers agree exactly. The published code adds up
    trapezoids, so that its quotients carry a rounding in the last digits, which ours do not."""
    block, window = block_and_window(setting)
    healthy = [score_map(inputs[f"id_{image}"], block, window) for image in IMAGES]
    anomalous = [score_map(inputs[f"ood_{image}"], block, window) for image in IMAGES]
    body = touched_blocks(inputs["body"], block)
    expected = EXPECTED_AUROC[setting]
    for image in IMAGES:
        lesion = touched_blocks(inputs[f"mask_{image}"], block)
        half_pairs = 2 * (lesion & body).sum() * (~lesion & body).sum()
        ours = image_level_auroc(anomalous[image], lesion, body)
        theirs = expected["image_level"][image]
        assert round(ours * half_pairs) == round(theirs * half_pairs)
        assert ours == pytest.approx(theirs, rel=1e-14)
    assert dataset_level_auroc(healthy, anomalous) == expected["dataset_level"]


def test_channels_are_summed_and_samples_averaged():
    updates = torch.full((4, 3, 2, 4, 4), 2.0)
    np.testing.assert_array_equal(score_map(updates, 2, (1, 3)), np.full((2, 2), 2.0**2 * 2 * 4))


def test_a_map_of_a_single_block_is_the_same_up_to_the_order_of_summation(inputs):
    running = RunningScore(32, (0, 100), samples=2)
    for update in inputs["id_0"]:
        running.add(update)
    np.testing.assert_allclose(running.maps()[0], score_map(inputs["id_0"], 32, (0, 100)), rtol=2e-6)


def _unfinished() -> None:
    running = RunningScore(2, (0, 3))
    running.add(np.zeros((1, 1, 4, 4)))
    running.maps()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: score_map(np.zeros((4, 1, 1, 4, 4)), 3, (0, 4)), "do not divide"),
        (lambda: score_map(np.zeros((4, 1, 1, 4, 4)), 2, (2, 5)), "within the 4 steps"),
        (lambda: score_map(np.zeros((4, 1, 1, 4, 4)), 2, (2, 2)), "within the 4 steps"),
        (lambda: score_map(np.zeros((4, 4, 4)), 2, (0, 4)), "not \\(4, 4, 4\\)"),
        (_unfinished, "within the 1 steps"),
        (lambda: RunningScore(2, (0, 3), 2, 3).add(np.zeros((5, 1, 4, 4))), "\\[6 items, .*not \\(5, 1, 4, 4\\)"),
        (lambda: RunningScore(2, (1, 3)).add(np.zeros((4, 4))), "not \\(4, 4\\)"),
    ],
)
def test_what_cannot_be_scored_is_a_usage_error(wrong, said):
    with pytest.raises(UsageError, match=said):
        wrong()
