"""Updates that are kept, scored by the published recipe, against the engine's own integral and the closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from klip_engine.errors import UsageError
from klip_engine.io.artifacts import open_artifact
from klip_engine.measurement import SimulatedScanner
from klip_engine.operators import Identity
from klip_engine.samplers import DDS, Step
from klip_engine.scoring.klip import ScoreTerm, tile_sums
from klip_engine.scoring.published import RunningScore, score_map
from klip_engine.scoring.updates import UpdateRecorder
from klip_engine.slices import NetworkMeter, ScoredSlices, score_slices
from tests.conftest import GaussianPrior

SHAPE, VARIANCE, NOISE = (8, 12), 0.25, 0.04
SAMPLER = DDS(steps=120, sigma_max=20.0, sigma_min=0.002)
WINDOW = (40, 70)


def recorded(folder: Path, images: torch.Tensor, terms: list[ScoreTerm], **how: int) -> ScoredSlices:
    prior = GaussianPrior(torch.zeros(1, 1, *images.shape[-2:]), VARIANCE)
    recorder = UpdateRecorder(folder, SAMPLER.levels, images[:, 0].numpy() > 0, {"seed": 4})
    scanner = SimulatedScanner(Identity(images.shape[-2:]), NOISE, None, 0)
    chosen = {"samples": 2, "seed": 4, "batch_slices": 2} | how
    return score_slices(
        images, scanner, NetworkMeter(prior), SAMPLER, terms, device="cpu", observer=recorder, **chosen
    )


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(3, 1, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def run(tmp_path_factory, images) -> tuple[Path, torch.Tensor]:
    """The files of three slices, and the engine's densities of the whole integral and of a window."""
    levels, (first, last) = SAMPLER.levels, WINDOW
    between = [
        math.sqrt(levels[i - 1] * levels[i]) for i in (first, last)
    ]  # what the steps of the window stand for
    folder = tmp_path_factory.mktemp("updates")
    scored = recorded(folder, images, [ScoreTerm(), ScoreTerm((between[1], between[0]))])
    return folder, scored.density


def test_the_published_recipe_over_all_steps_is_the_engines_integral(run):
    folder, density = run
    for number in range(3):
        updates = open_artifact(folder / f"slice-{number:04d}.npz").load()
        assert updates.shape == (120, 2, 1, *SHAPE)
        klip = 120 / 2 * score_map(updates, 4, (0, 120))
        np.testing.assert_allclose(klip, tile_sums(density[number, 0], 4), rtol=1e-5)


def test_over_a_window_it_is_the_engines_integral_up_to_the_quadrature(run):
    folder, density = run
    for number in range(3):
        updates = open_artifact(folder / f"slice-{number:04d}.npz").load()
        klip = (WINDOW[1] - WINDOW[0]) / 2 * score_map(updates, 4, WINDOW)
        np.testing.assert_allclose(klip, tile_sums(density[number, 1], 4), rtol=0.01)


def test_of_gaussians_it_is_the_closed_form_divergence(tmp_path):
    y = 0.7
    recorded(tmp_path / "updates", torch.full((1, 1, 48, 64), y), [ScoreTerm()], samples=4)
    updates = open_artifact(tmp_path / "updates" / "slice-0000.npz").load()
    klip_per_pixel = len(updates) / 2 * float(score_map(updates, 1, (0, len(updates))).mean())
    v_post = 1 / (1 / VARIANCE + 1 / NOISE)
    m_post = v_post * y / NOISE
    divergence = 0.5 * (m_post**2 / VARIANCE + v_post / VARIANCE - 1 - math.log(v_post / VARIANCE))
    assert klip_per_pixel == pytest.approx(divergence, rel=0.03)


def test_updates_and_coefficients_are_those_of_the_definition(run):
    """g^2 dt = d(sigma^2) with time in steps: the squares of g add up to the integral of d(sigma^2)."""
    folder, _ = run
    artifact = open_artifact(folder / "slice-0001.npz")
    np.testing.assert_allclose(artifact.sigma, SAMPLER.levels, rtol=1e-6)
    assert float(np.square(artifact.g_values, dtype=np.float64).sum()) == pytest.approx(
        20.0**2 - 0.002**2, rel=0.01
    )


def test_files_depend_neither_on_the_batch_nor_on_the_order_and_say_what_they_are(run, images, tmp_path):
    folder, _ = run
    recorded(tmp_path / "alone", images, [ScoreTerm()], batch_slices=1)
    assert sorted(p.name for p in folder.iterdir()) == [f"slice-000{n}.npz" for n in range(3)]
    for number in range(3):
        together, alone = (open_artifact(f / f"slice-000{number}.npz") for f in (folder, tmp_path / "alone"))
        np.testing.assert_allclose(together.load(), alone.load(), atol=1e-5)
        np.testing.assert_array_equal(alone.body, images[number, 0] > 0)
        assert alone.settings == {"seed": 4, "slice": number}


class KeepsEveryFifth:
    """A sampler in the manner of the published code: every fifth step keeps an update of its own making."""

    levels = SAMPLER.levels

    def __call__(self, *given):
        for number, step in enumerate(SAMPLER(*given)):
            keeps = number % 5 == 4
            own = 3 * step.posterior_mean if keeps else None
            yield replace(step, update=own, diffusion=2 * step.sigma if keeps else None)


def test_updates_of_a_sampler_are_scored_from_the_file_as_they_are_scored_on_the_way(images, tmp_path):
    running = RunningScore(4, (3, 9), slices=3, samples=2)

    class Both(UpdateRecorder):
        def observe(self, step):
            super().observe(step)
            running.add_step(step)

    sampler = KeepsEveryFifth()
    prior, scanner = (
        GaussianPrior(torch.zeros(1, 1, *SHAPE), VARIANCE),
        SimulatedScanner(Identity(SHAPE), NOISE, None, 0),
    )
    how = {"samples": 2, "seed": 4, "batch_slices": 3, "device": "cpu"}
    recorder = Both(tmp_path, sampler.levels)
    score_slices(images, scanner, NetworkMeter(prior), sampler, [ScoreTerm()], observer=recorder, **how)
    for number in range(3):
        artifact = open_artifact(tmp_path / f"slice-000{number}.npz")
        assert artifact.shape == (24, 2, 1, *SHAPE)
        np.testing.assert_allclose(artifact.sigma, SAMPLER.levels[4::5], rtol=1e-6)
        np.testing.assert_allclose(artifact.g_values, 2 * artifact.sigma, rtol=1e-6)
        np.testing.assert_array_equal(running.maps()[number], score_map(artifact.load(), 4, (3, 9)))


def test_what_a_sampler_keeps_itself_is_kept_as_it_is(tmp_path):
    """Every third step keeps an update of its own, the first ones none: only those are in the files."""
    generator = torch.Generator().manual_seed(0)
    levels = [float(9 - i) for i in range(9)]
    recorder = UpdateRecorder(tmp_path, levels)
    kept = torch.randn(3, 2 * 4, 3, 5, 6, generator=generator)  # three steps, two slices of four samples, RGB
    for numbers in (range(2), range(2, 4)):
        for i, sigma in enumerate(levels):
            own = {"update": kept[i // 3] + numbers[0], "diffusion": 10 * sigma} if i % 3 == 2 else {}
            recorder.observe(Step(sigma, torch.zeros(8, 3, 5, 6), torch.ones(8, 3, 5, 6), **own))
        recorder.finish(numbers, samples=4)
    assert len(list(tmp_path.iterdir())) == 4
    artifact = open_artifact(tmp_path / "slice-0003.npz")
    np.testing.assert_array_equal(artifact.load(), kept[:, 4:] + 2)
    np.testing.assert_array_equal(artifact.g_values, [70, 40, 10])
    np.testing.assert_array_equal(artifact.sigma, [7, 4, 1])
    assert artifact.body is None


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "slice-0000.npz").write_bytes(b"of an earlier run")
    with pytest.raises(UsageError, match="new or empty folder"):
        UpdateRecorder(tmp_path, [2.0, 1.0])
    with pytest.raises(UsageError, match="cannot be written"):
        UpdateRecorder(tmp_path / "slice-0000.npz" / "x", [2.0, 1.0])
