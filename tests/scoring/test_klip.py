"""KLIP against the closed-form Kullback-Leibler divergence of Gaussians (Cover and Thomas, 8.5)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from klip_engine.operators import Identity, build_operator
from klip_engine.samplers import DDS, ItemNoise, Measurement, Step
from klip_engine.scoring.klip import (
    KlipAccumulator,
    ScoreTerm,
    block_means,
    quadrature,
    tile_sums,
)
from tests.conftest import GaussianPrior

SHAPE = (6, 8)


def _run(operator, data, noise_variance, prior, terms, samples=512, steps=400):
    sampler = DDS(steps=steps, sigma_max=300, sigma_min=1e-3, iterations=60)
    measurement = Measurement(operator, data, noise_variance).repeated(samples)
    noise = ItemNoise(0, [(0, s) for s in range(samples)], (1, *SHAPE), "cpu")
    accumulator = KlipAccumulator(terms, sampler.levels, 1, samples)
    for step in sampler(prior, measurement, noise):
        accumulator.add(step)
    return accumulator.density()[0]


def _gaussian_kl(mean, covariance, prior_mean, prior_variance) -> float:
    n = len(mean)
    shift = mean - prior_mean
    trace = covariance.trace() / prior_variance
    logs = n * math.log(prior_variance) - torch.linalg.slogdet(covariance).logabsdet
    return float(0.5 * (trace + shift @ shift / prior_variance - n + logs))


def test_integral_over_all_levels_is_the_kl_divergence_identity():
    prior = GaussianPrior(torch.zeros(1, 1, *SHAPE), 0.25)
    y = torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(3))
    density = _run(Identity(SHAPE), y, 0.09, prior, [ScoreTerm()])[0]
    posterior_variance = 1 / (1 / 0.25 + 1 / 0.09)
    posterior_mean = posterior_variance * y / 0.09
    per_pixel = 0.5 * (
        posterior_variance / 0.25 + posterior_mean**2 / 0.25 - 1 + math.log(0.25 / posterior_variance)
    )
    assert float(density.sum()) == pytest.approx(float(per_pixel.sum()), rel=0.02)
    # For independent pixels each pixel carries its own divergence.
    torch.testing.assert_close(density, per_pixel[0, 0], rtol=0.2, atol=0.02)


def test_integral_over_all_levels_is_the_kl_divergence_sparse_views():
    """The posterior of few CT views is correlated: the closed form needs the whole covariance."""
    operator = build_operator("parallel", SHAPE, 3.0, views=4)
    prior = GaussianPrior(torch.full((1, 1, *SHAPE), 0.1), 0.25)
    truth = torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(5))
    noise_variance = 4.0
    data = operator.forward(truth)
    density = _run(operator, data, noise_variance, prior, [ScoreTerm()])[0]
    n = SHAPE[0] * SHAPE[1]
    a = operator.forward(torch.eye(n).view(n, 1, *SHAPE)).flatten(1).T.double()
    precision = a.T @ a / noise_variance + torch.eye(n) / 0.25
    covariance = torch.linalg.inv(precision)
    mean = covariance @ (a.T @ data.flatten().double() / noise_variance + 0.1 / 0.25)
    expected = _gaussian_kl(mean, covariance, torch.full((n,), 0.1, dtype=torch.float64), 0.25)
    assert float(density.sum()) == pytest.approx(expected, rel=0.02)


def test_windows_add_up_and_the_variance_weighting_is_the_mahalanobis_pull():
    prior = GaussianPrior(torch.zeros(1, 1, *SHAPE), 0.25)
    y = torch.ones(1, 1, *SHAPE)
    terms = [ScoreTerm((0, 0.3)), ScoreTerm((0.3, math.inf)), ScoreTerm(), ScoreTerm((0.1, 1.0), "variance")]
    low, high, whole, mahalanobis = _run(Identity(SHAPE), y, 0.09, prior, terms, samples=8, steps=60)
    torch.testing.assert_close(low + high, whole, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(mahalanobis, whole)
    step = Step(0.5, torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.2), torch.full((1, 1, 2, 2), 0.04).log())
    accumulator = KlipAccumulator([ScoreTerm(weighting="variance")], [1.0, 0.5, 0.25], 1, 1)
    accumulator.add(step)
    expected = 0.2**2 / 0.04 * math.log(2)  # one level of a trapezoid rule stands for log(2) of log sigma
    torch.testing.assert_close(accumulator.density(), torch.full((1, 1, 2, 2), expected))


def test_the_coherent_weighting_is_the_mean_pull_against_the_mean_variance():
    pull, variance = torch.zeros(2, 1, 40, 40), torch.full((2, 1, 40, 40), 0.01)
    pull[0], pull[1] = 0.3, -0.1  # two samples of one slice: their mean is 0.1 everywhere
    variance[:, :, :, 20:] = 0.09
    step = Step(0.5, torch.zeros_like(pull), pull, variance.log())
    accumulator = KlipAccumulator([ScoreTerm(weighting="coherent", coherence_pixels=1.5)], [1.0, 0.5, 0.25], 1, 2)
    accumulator.add(step)
    density = accumulator.density()[0, 0] / math.log(2)  # one level of a trapezoid rule stands for log(2)
    assert float(density[20, 5]) == pytest.approx(0.1**2 / 0.01, rel=1e-4)
    assert float(density[20, 35]) == pytest.approx(0.1**2 / 0.09, rel=1e-4)
    assert float(density[20, 19:21].mean()) == pytest.approx(0.1**2 / 0.05, rel=0.1)  # both sides share the edge


def test_the_geometric_weighting_is_the_geometric_mean_of_contrast_and_surprise():
    generator = torch.Generator().manual_seed(3)
    pull = torch.randn(2, 1, 12, 16, generator=generator)
    step = Step(0.5, torch.zeros_like(pull), pull, torch.randn(2, 1, 12, 16, generator=generator))
    terms = [ScoreTerm(weighting=name) for name in ("plain-coherent", "coherent", "geometric-coherent")]
    accumulator = KlipAccumulator(terms, [1.0, 0.5, 0.25], 1, 2)
    accumulator.add(step)
    contrast, surprise, both = accumulator.density()[0]
    torch.testing.assert_close(both, (contrast * surprise).sqrt())


def test_pulls_to_both_sides_cancel_only_under_the_coherent_weighting():
    pull = torch.tensor([0.2, -0.2]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    step = Step(0.5, torch.zeros(2, 1, 8, 8), pull, torch.zeros(2, 1, 8, 8))
    terms = [ScoreTerm(weighting=name) for name in ("variance", "coherent", "plain-coherent", "geometric-coherent")]
    accumulator = KlipAccumulator(terms, [1.0, 0.5, 0.25], 1, 2)
    accumulator.add(step)
    variance, coherent, plain, geometric = accumulator.density()[0]
    assert float(variance.min()) == pytest.approx(0.04 * math.log(2), rel=1e-5)
    assert float(coherent.max()) < 1e-12
    assert float(plain.max()) < 1e-12
    assert float(geometric.max()) < 1e-12


def test_a_pull_to_one_side_counts_the_same_with_or_without_the_mean_before_the_square():
    step = Step(0.5, torch.zeros(2, 1, 8, 8), torch.full((2, 1, 8, 8), 0.2))
    terms = [ScoreTerm(weighting="plain"), ScoreTerm(weighting="plain-coherent", coherence_pixels=2.0)]
    accumulator = KlipAccumulator(terms, [1.0, 0.5, 0.25], 1, 2)
    accumulator.add(step)
    plain, coherent = accumulator.density()[0]
    torch.testing.assert_close(plain, torch.full((8, 8), 0.2**2 / 0.5**2 * math.log(2)))
    torch.testing.assert_close(coherent, plain)


def test_the_energy_of_pulls_to_both_sides_adds_up_around_a_pixel_and_noise_between_samples_cancels():
    generator = torch.Generator().manual_seed(4)
    pull = torch.randn(1, 1, 20, 24, generator=generator)
    terms = [ScoreTerm(weighting="plain"), ScoreTerm(weighting="plain-energy", coherence_pixels=2.0)]
    densities = []
    for samples in (torch.cat([pull, pull]), torch.cat([pull, -pull])):
        accumulator = KlipAccumulator(terms, [1.0, 0.5, 0.25], 1, 2)
        accumulator.add(Step(0.5, torch.zeros_like(samples), samples))
        densities.append(accumulator.density()[0])
    (plain, energy), (_, of_noise) = densities
    expected = gaussian_filter(plain.numpy(), 2.0, mode="nearest", truncate=3.0)
    torch.testing.assert_close(energy, torch.from_numpy(expected), rtol=1e-4, atol=1e-6)
    assert float(of_noise.abs().max()) < 1e-12


def test_the_energy_of_denser_pulls_leaves_out_those_to_the_other_side():
    pull = torch.randn(1, 1, 20, 24, generator=torch.Generator().manual_seed(5))
    terms = [ScoreTerm(weighting="plain-denser-energy", coherence_pixels=2.0)]
    densities = []
    for samples in (torch.cat([pull, pull]), torch.cat([pull, -pull]), -pull.abs().expand(2, 1, -1, -1)):
        accumulator = KlipAccumulator(terms, [1.0, 0.5, 0.25], 1, 2)
        accumulator.add(Step(0.5, torch.zeros_like(samples), samples))
        densities.append(accumulator.density()[0, 0])
    denser = np.square(np.maximum(pull[0, 0].numpy(), 0)) / 0.25 * math.log(2)
    expected = gaussian_filter(denser, 2.0, mode="nearest", truncate=3.0)
    torch.testing.assert_close(densities[0], torch.from_numpy(expected), rtol=1e-4, atol=1e-6)
    for nothing in densities[1:]:
        assert float(nothing.abs().max()) < 1e-12


def test_energies_of_several_noise_levels_add_up():
    generator = torch.Generator().manual_seed(6)
    levels = [1.0, 0.5, 0.25]
    steps = [Step(s, torch.zeros(1, 1, 9, 9), torch.randn(1, 1, 9, 9, generator=generator)) for s in levels]
    term = ScoreTerm(weighting="plain-energy", coherence_pixels=1.5)
    together = KlipAccumulator([term], levels, 1, 1)
    apart = torch.zeros(1, 1, 9, 9)
    for step in steps:
        together.add(step)
        one = KlipAccumulator([term], levels, 1, 1)
        one.add(step)
        apart += one.density()
    torch.testing.assert_close(together.density(), apart)


def test_quadrature_is_exact_for_linear_integrands_and_any_window():
    levels = [4.0, 2.5, 1.0, 0.3, 0.2]
    values = [3 + 2 * math.log(level) for level in levels]
    for low, high in [(0.2, 4.0), (0.25, 1.7), (1.1, 1.2), (0.0, math.inf)]:
        a, b = math.log(max(low, 0.2)), math.log(min(high, 4.0))
        exact = 3 * (b - a) + (b * b - a * a)
        total = sum(w * v for w, v in zip(quadrature(levels, (low, high)), values, strict=True))
        assert total == pytest.approx(exact, rel=1e-12)


def test_tiles_sum_to_the_whole_and_sliding_blocks_are_means():
    density = torch.rand(2, 3, 13, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for block in (1, 2, 4, 5, 32):
        tiles = tile_sums(density, block)
        assert tiles.shape[-2:] == (-(-13 // block), -(-10 // block))
        torch.testing.assert_close(tiles.sum(dim=(-2, -1)), density.sum(dim=(-2, -1)))
    assert float(tile_sums(density, 4)[1, 2, 1, 0]) == pytest.approx(float(density[1, 2, 4:8, :4].sum()))
    means = block_means(density, 3)
    assert float(means[0, 1, 5, 5]) == pytest.approx(float(density[0, 1, 4:7, 4:7].mean()))
    with pytest.raises(ValueError, match="odd"):
        block_means(density, 4)


def test_accumulated_size_does_not_grow_with_steps_or_samples():
    sizes = set()
    for steps, samples in ((5, 2), (50, 2), (5, 20)):
        levels = [2.0**-n for n in range(steps)]
        accumulator = KlipAccumulator([ScoreTerm()], levels, 3, samples)
        zero = torch.zeros(3 * samples, 1, *SHAPE)
        for level in levels:
            accumulator.add(Step(level, zero, zero + 1))
        sizes.add(accumulator.density().numel())
    assert sizes == {3 * SHAPE[0] * SHAPE[1]}
