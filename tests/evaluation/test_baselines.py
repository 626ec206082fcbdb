"""The methods of comparison against closed forms, hand computation and planted anomalies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from klip_engine.errors import UsageError
from klip_engine.evaluation.baselines import (
    BASELINES,
    DiffPath,
    Evidence,
    Likelihood,
    PartialDiffusion,
    ReedXiaoli,
    Residual,
)
from klip_engine.evaluation.baselines.classic import reed_xiaoli
from klip_engine.evaluation.baselines.diffpath import cosine_levels, fit_gaussian, path_statistics
from klip_engine.operators import Identity, build_operator
from klip_engine.priors.base import PriorMean
from klip_engine.samplers import Measurement
from klip_engine.slices import NetworkMeter
from tests.conftest import GaussianPrior

SHAPE = (24, 32)
MEAN = -0.3
VARIANCE = 0.09


class CorrelatedPrior:
    """The exact denoiser of x0 ~ N(0, C) with C = variance * exp(-distance / length) between any two pixels."""

    channels = 1
    sigma_min, sigma_max = 1e-4, 1e3

    def __init__(self, shape: tuple[int, int], variance: float, length: float) -> None:
        self.image_shape, self.data_variance = shape, variance
        grid = torch.cartesian_prod(*(torch.arange(float(side)) for side in shape)).double()
        self.covariance = variance * torch.exp(-torch.cdist(grid, grid) / length)

    def denoise(self, x: torch.Tensor, sigma: float) -> PriorMean:
        noisy = self.covariance + sigma**2 * torch.eye(len(self.covariance), dtype=torch.float64)
        gain = torch.linalg.solve(noisy, self.covariance).to(x.dtype)
        return PriorMean((x.flatten(1) @ gain).view_as(x))


class PerfectPrior:
    """A prior that holds one image and nothing else: E[x0 | x_t] is that image."""

    image_shape, sigma_min, sigma_max, data_variance = SHAPE, 1e-4, 1e3, 0.25

    def __init__(self, image: torch.Tensor) -> None:
        self.image = image

    def denoise(self, x: torch.Tensor, sigma: float) -> PriorMean:
        return PriorMean(self.image.expand_as(x))


@pytest.fixture
def prior() -> GaussianPrior:
    return GaussianPrior(torch.full((1, 1, *SHAPE), MEAN), VARIANCE)


def evidence(images: torch.Tensor, first: int = 0) -> Evidence:
    """The identity's evidence: reconstruction and measurement differ by a little fixed noise."""
    generator = torch.Generator().manual_seed(77)
    noise = 0.02 * torch.randn(64, 1, *images.shape[2:], generator=generator)[first : first + len(images)]
    measurement = Measurement(Identity(tuple(images.shape[2:])), images + noise, 0.02**2)
    body = torch.ones(len(images), *images.shape[2:], dtype=torch.bool)
    return Evidence(images, measurement, body, tuple(range(first, first + len(images))))


def drawn(count: int, seed: int = 0) -> torch.Tensor:
    """Images of the Gaussian prior."""
    generator = torch.Generator().manual_seed(seed)
    return MEAN + math.sqrt(VARIANCE) * torch.randn(count, 1, *SHAPE, generator=generator)


def disc(row: float, column: float, radius: float) -> torch.Tensor:
    rows, columns = torch.meshgrid(*(torch.arange(float(side)) for side in SHAPE), indexing="ij")
    return (rows - row).square() + (columns - column).square() <= radius**2


@pytest.mark.parametrize("key", list(BASELINES))
def test_a_slice_scores_the_same_in_any_batch_and_with_the_same_seed(key, prior):
    fitted = BASELINES[key].fitted(prior, evidence(drawn(16, seed=1), first=20), seed=3)
    whole = evidence(drawn(3))
    together, again = fitted.score(prior, whole, 3), fitted.score(prior, whole, 3)
    assert torch.equal(together.maps, again.maps)
    assert torch.equal(together.slices, again.slices)
    parts = [fitted.score(prior, part, 3) for part in whole.batches(2)]
    torch.testing.assert_close(torch.cat([p.maps for p in parts]), together.maps, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cat([p.slices for p in parts]), together.slices, rtol=1e-4, atol=1e-4)
    assert together.maps.shape == (3, *SHAPE)
    assert together.slices.shape == (3,)


@pytest.mark.parametrize("key", list(BASELINES))
def test_as_many_network_evaluations_as_announced_even_on_tensors_made_for_inference(key, prior):
    baseline = BASELINES[key].fitted(prior, evidence(drawn(16, seed=1), first=20), seed=0)
    meter = NetworkMeter(prior)
    with torch.inference_mode():
        scores = baseline.score(meter, evidence(drawn(3).clone()), 0)
    assert meter.evaluations == 3 * baseline.evaluations
    outside = baseline.score(prior, evidence(drawn(3)), 0)
    torch.testing.assert_close(scores.slices, outside.slices)


def test_only_random_methods_depend_on_the_seed(prior):
    healthy, whole = evidence(drawn(16, seed=1), first=20), evidence(drawn(2))
    for key, baseline in BASELINES.items():
        fitted = baseline.fitted(prior, healthy, 0)
        same = torch.equal(fitted.score(prior, whole, 0).maps, fitted.score(prior, whole, 1).maps)
        # The Jacobian of an uncorrelated Gaussian is diagonal, so that the likelihood's probes cancel.
        assert same == (key != "partial-diffusion"), key


@pytest.mark.parametrize(("steps", "tolerance"), [(20, 0.06), (80, 0.02)])
def test_likelihood_of_an_uncorrelated_gaussian_nears_the_closed_form(steps, tolerance, prior):
    images = drawn(4)
    scores = Likelihood(steps=steps).score(prior, evidence(images), 0)
    variance = VARIANCE + Likelihood().sigma_min ** 2
    constant = 0.5 * math.log(2 * math.pi * variance)
    nats = constant + 0.5 * (images[:, 0] - MEAN).square() / variance
    torch.testing.assert_close(scores.maps - constant, nats - constant, rtol=tolerance, atol=tolerance)
    bits = nats.mean(dim=(1, 2)) / math.log(2)
    torch.testing.assert_close(scores.slices, bits, rtol=0, atol=tolerance)


def test_likelihood_of_a_correlated_gaussian_is_that_of_its_closed_form():
    prior = CorrelatedPrior((10, 12), variance=0.2, length=4.0)
    noisy = prior.covariance + Likelihood().sigma_min ** 2 * torch.eye(120, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(torch.zeros(120, dtype=torch.float64), noisy)
    white = torch.randn(8, 120, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    flat = white @ law.scale_tril.T
    flat[4:] *= 1.5  # less likely ones
    exact = -law.log_prob(flat)
    scores = Likelihood(steps=60).score(prior, evidence(flat.float().view(8, 1, 10, 12)), 0)
    estimate = scores.maps.double().sum(dim=(1, 2))
    torch.testing.assert_close(scores.slices.double() * 120 * math.log(2), estimate, rtol=1e-5, atol=1e-3)
    spread = float(exact[4:].mean() - exact[:4].mean())
    assert float((estimate - exact).abs().max()) < 0.1 * spread
    assert abs(float((estimate - exact).mean())) < 0.05 * spread


def test_path_of_a_gaussian_has_the_statistics_of_its_closed_form(prior):
    # Noise predicted for N(m, v): e = sigma (x - m) / (v + sigma^2). A DDIM step takes x - m to
    # (x - m) (v + sigma sigma') / (v + sigma^2).
    images, levels = drawn(2), [0.1, 0.4, 1.5]
    deviation, noises = (images[:, 0] - MEAN).double(), []
    for sigma, sigma_next in zip(levels, [0.4, 1.5, 1.5], strict=True):
        noises.append(deviation * sigma / (VARIANCE + sigma**2))
        deviation = deviation * (VARIANCE + sigma * sigma_next) / (VARIANCE + sigma**2)
    rates = [3 * (noises[1] - noises[0]), 3 * (noises[2] - noises[1])]
    expected = [sum(e**power for e in series) for series in (noises, rates) for power in (1, 2, 3)]
    statistics = path_statistics(prior, images, levels)
    torch.testing.assert_close(statistics.double(), torch.stack(expected, dim=1), rtol=1e-4, atol=1e-4)


def test_levels_of_diffpath_are_those_of_the_cosine_schedule():
    time = (0.3 + 0.008) / 1.008
    signal = math.cos(time * math.pi / 2) ** 2
    assert cosine_levels(10)[3] == pytest.approx(math.sqrt((1 - signal) / signal))
    assert len(cosine_levels(10)) == 10


def test_fitted_gaussian_has_the_density_of_sample_mean_and_covariance():
    generator = torch.Generator().manual_seed(5)
    mixing = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 30.0, 10.0]])
    features = torch.randn(500, 3, generator=generator) @ mixing.T + torch.tensor([1.0, -2.0, 100.0])
    law = torch.distributions.MultivariateNormal(features.mean(dim=0), torch.cov(features.T))
    torch.testing.assert_close(
        fit_gaussian(features).negative_log_density(features), -law.log_prob(features), rtol=0.01, atol=0.02
    )


def test_diffpath_finds_a_slice_of_another_distribution_and_where(prior):
    fitted = DiffPath().fitted(prior, evidence(drawn(48, seed=1)), 0)
    healthy, altered = drawn(6, seed=2), drawn(6, seed=2)
    lesion = disc(12, 16, 4)
    altered[:, 0, lesion] += 1.0
    usual, strange = fitted.score(prior, evidence(healthy), 0), fitted.score(prior, evidence(altered), 0)
    assert bool((strange.slices > usual.slices).all())
    assert bool((strange.maps[:, lesion].mean(dim=1) > 2 * usual.maps.mean()).all())


@pytest.mark.parametrize("baseline", [DiffPath(), PartialDiffusion()])
def test_methods_that_learn_refuse_to_score_before(baseline, prior):
    with pytest.raises(UsageError, match="fitted"):
        baseline.score(prior, evidence(drawn(1)), 0)


def test_partial_diffusion_changes_only_what_the_prior_does_not_hold():
    image = torch.full((1, 1, *SHAPE), 0.1)
    lesion = disc(12, 16, 4)
    altered = image.clone()
    altered[:, :, lesion] += 0.3
    change = PartialDiffusion().squared_change(PerfectPrior(image), evidence(torch.cat([image, altered])), 0)
    assert float(change[0].max()) < 1e-10
    torch.testing.assert_close(change[1][:, lesion], torch.full_like(change[1][:, lesion], 0.09))
    assert float(change[1][:, ~lesion].max()) < 1e-10


def test_partial_diffusion_averages_z_scores_of_the_healthy():
    healthy = evidence(drawn(12, seed=1))
    prior = PerfectPrior(torch.full((1, 1, *SHAPE), MEAN))
    fitted = PartialDiffusion(starts=(0.2, 0.6)).fitted(prior, healthy, 0)
    error = (healthy.reconstruction[:, 0].double() - MEAN).square()
    z = (error - error.mean()) / error.std()
    of_slices = error.mean(dim=(1, 2))
    scores = fitted.score(prior, healthy, 0)
    torch.testing.assert_close(scores.maps.double(), z, rtol=1e-3, atol=1e-3)
    expected = (of_slices - of_slices.mean()) / of_slices.std()
    torch.testing.assert_close(scores.slices.double(), expected, rtol=1e-3, atol=1e-3)


def test_residual_is_nothing_for_a_consistent_scan_and_chi_squared_for_noise(prior):
    images = drawn(3).clamp(-1, 1)
    operator = build_operator("parallel", SHAPE, 3.0, views=9)
    data = operator.forward(images)
    body = torch.ones(3, *SHAPE, dtype=torch.bool)
    consistent = Evidence(images, Measurement(operator, data, 0.04), body, (0, 1, 2))
    nothing = Residual().score(prior, consistent, 0)
    assert float(nothing.maps.max()) == 0
    assert float(nothing.slices.max()) == 0

    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(6))
    variance = torch.linspace(0.5, 2.0, data.numel()).view_as(data)
    noisy = Evidence(images, Measurement(operator, data + variance.sqrt() * noise, variance), body, (0, 1, 2))
    scores = Residual().score(prior, noisy, 0)
    torch.testing.assert_close(scores.slices, noise.square().mean(dim=(1, 2)), rtol=1e-3, atol=1e-3)
    by_hand = operator.pseudo_inverse(variance.sqrt() * noise)[:, 0].abs()
    torch.testing.assert_close(scores.maps, by_hand, rtol=1e-3, atol=1e-4)
    parts = torch.cat([Residual().score(prior, part, 0).slices for part in noisy.batches(2)])
    torch.testing.assert_close(parts, scores.slices)


def test_reed_xiaoli_is_the_statistic_of_its_windows():
    generator = np.random.default_rng(7)
    image, body = generator.normal(size=SHAPE), generator.random(SHAPE) < 0.8
    statistic = reed_xiaoli(
        torch.from_numpy(image)[None, None], torch.from_numpy(body)[None, None].double(), (3, 5, 9), 0.1
    )
    for row, column in [(12, 16), (0, 0), (23, 5), (7, 31)]:
        rows, columns = np.indices(SHAPE)
        distance = np.maximum(abs(rows - row), abs(columns - column))
        target = image[body & (distance <= 1)]
        ring = image[body & (distance <= 4) & (distance > 2)]
        by_hand = (target.mean() - ring.mean()) ** 2 / (ring.var() + 0.1**2)
        assert float(statistic[0, 0, row, column]) == pytest.approx(by_hand)


def test_reed_xiaoli_finds_a_disc_but_not_the_outline_of_the_body(prior):
    generator = torch.Generator().manual_seed(8)
    body, lesion = disc(12, 16, 11), disc(13, 17, 2)
    image = torch.where(body, 0.04, -1.0) + 0.01 * torch.randn(SHAPE, generator=generator)
    image = torch.where(lesion, image + 0.15, image)[None, None]
    measurement = Measurement(Identity(SHAPE), image, 1e-4)
    scores = ReedXiaoli().score(prior, Evidence(image, measurement, body[None], (0,)), 0)
    assert bool(lesion.flatten()[scores.maps.flatten().argmax()])
    assert float(scores.maps[0][lesion].median()) > 5 * float(scores.maps[0][body & ~disc(13, 17, 8)].max())
    assert float(scores.maps[0][~body].abs().max()) == 0
    assert float(scores.slices[0]) == float(scores.maps.max())


def test_reed_xiaoli_of_a_slice_without_body_is_zero(prior):
    image = drawn(1)
    measurement = Measurement(Identity(SHAPE), image, 1e-4)
    nobody = torch.zeros(1, *SHAPE, dtype=torch.bool)
    scores = ReedXiaoli().score(prior, Evidence(image, measurement, nobody, (0,)), 0)
    assert float(scores.slices[0]) == 0


def test_likelihood_probes_are_drawn_from_the_slice_alone():
    prior = CorrelatedPrior((10, 12), variance=0.2, length=4.0)
    images = torch.zeros(3, 1, 10, 12)
    seed_0, seed_1 = (Likelihood().score(prior, evidence(images), seed).maps for seed in (0, 1))
    assert not torch.equal(seed_0, seed_1)
    alone = Likelihood().score(prior, evidence(images[:1], first=2), 0).maps
    torch.testing.assert_close(alone[0], seed_0[2], rtol=1e-4, atol=1e-4)
