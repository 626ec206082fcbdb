"""DDS with a Gaussian prior has a closed-form posterior to be held to."""

from __future__ import annotations

import pytest
import torch

from klip_engine.errors import UsageError
from klip_engine.operators import Identity, build_operator
from klip_engine.samplers import DDS, ItemNoise, Measurement, ancestral_step, build_sampler, sample_prior
from klip_engine.samplers.dds import proximal_data_step
from tests.conftest import GaussianPrior

SHAPE = (8, 10)


def _dense(operator) -> torch.Tensor:
    basis = torch.eye(SHAPE[0] * SHAPE[1]).view(-1, 1, *SHAPE)
    return operator.forward(basis).flatten(1).T.double()


def test_proximal_step_solves_the_normal_equations():
    operator = build_operator("parallel", SHAPE, 3.0, views=5)
    generator = torch.Generator().manual_seed(1)
    truth, prior_mean = torch.randn(2, 3, 1, *SHAPE, generator=generator)
    measurement = Measurement(operator, operator.forward(truth), 0.7)
    z = proximal_data_step(measurement, measurement.back_projection(), prior_mean, 2.5, iterations=200)
    a = _dense(operator)
    hessian = a.T @ a / 0.7 + 2.5 * torch.eye(a.shape[1])
    right = measurement.back_projection().flatten(1).double() + 2.5 * prior_mean.flatten(1).double()
    exact = torch.linalg.solve(hessian, right.T).T
    torch.testing.assert_close(z.flatten(1).double(), exact, atol=2e-4, rtol=0)


def test_proximal_step_of_an_item_does_not_depend_on_its_batch():
    operator = build_operator("parallel", SHAPE, 3.0, views=5)
    generator = torch.Generator().manual_seed(2)
    truth = torch.randn(4, 1, *SHAPE, generator=generator) * torch.tensor([1, 10, 0.1, 0]).view(-1, 1, 1, 1)
    start = torch.zeros_like(truth)

    def solve(items: slice) -> torch.Tensor:
        measurement = Measurement(operator, operator.forward(truth[items]), 0.7)
        return proximal_data_step(measurement, measurement.back_projection(), start[items], 1.0, 8)

    together = solve(slice(0, 4))
    alone = torch.cat([solve(slice(i, i + 1)) for i in range(4)])
    scale = truth.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
    assert float(((together - alone) / scale).abs().max()) < 1e-3


@pytest.mark.parametrize("stochasticity", [0.0, 1.0])
def test_samples_have_the_posterior_mean_and_variance(stochasticity):
    prior = GaussianPrior(torch.full((1, 1, *SHAPE), 0.3), 0.25)
    noise_variance, samples = 0.04, 300
    y = torch.full((1, 1, *SHAPE), -0.5)
    measurement = Measurement(Identity(SHAPE), y, noise_variance).repeated(samples)
    noise = ItemNoise(0, [(0, s) for s in range(samples)], (1, *SHAPE), "cpu")
    sampler = DDS(steps=500, sigma_max=50, sigma_min=1e-3, stochasticity=stochasticity)
    *_, last = sampler(prior, measurement, noise)
    precision = 1 / 0.25 + 1 / noise_variance
    mean = (0.3 / 0.25 - 0.5 / noise_variance) / precision
    # The last level's posterior mean is the sample itself up to sigma_min.
    assert float(last.posterior_mean.mean()) == pytest.approx(mean, abs=5e-3)
    assert float(last.posterior_mean.var(dim=0).mean()) == pytest.approx(1 / precision, rel=0.05)


def test_ancestral_step_keeps_the_marginal():
    """x_t = x0 + t n and the exact x0 give x_s = x0 + s n', for every stochasticity."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.zeros(20000)
    for stochasticity in (0.0, 0.5, 1.0):
        x = 2.0 * torch.randn(20000, generator=generator)
        x = ancestral_step(x, x0, 2.0, 1.2, torch.randn(20000, generator=generator), stochasticity)
        assert float(x.std()) == pytest.approx(1.2, rel=0.03)


def test_drawn_images_have_the_moments_of_the_prior():
    prior = GaussianPrior(torch.full((1, 1, *SHAPE), 0.3), 0.25)
    drawn = sample_prior(prior, ItemNoise(0, [(n, 0) for n in range(300)], (1, *SHAPE), "cpu"), steps=200)
    assert float(drawn.mean()) == pytest.approx(0.3, abs=0.01)
    assert float(drawn.var(dim=0).mean()) == pytest.approx(0.25, rel=0.05)


def test_noise_depends_on_the_item_alone():
    shape = (1, 4, 4)
    both = ItemNoise(7, [(3, 0), (5, 1)], shape, "cpu")
    alone = ItemNoise(7, [(5, 1)], shape, "cpu")
    for _ in range(3):
        assert torch.equal(both.draw()[1:], alone.draw())
    assert not torch.equal(ItemNoise(8, [(5, 1)], shape, "cpu").draw(), ItemNoise(7, [(5, 1)], shape, "cpu").draw())


def test_antithetic_samples_have_opposite_noise_and_stay_standard_normal():
    shape = (1, 200, 200)
    items = [(3, 0), (3, 1), (3, 2), (3, 3)]
    pairs = ItemNoise(7, items, shape, "cpu", antithetic=True)
    plain = ItemNoise(7, items, shape, "cpu")
    for _ in range(2):
        drawn, usual = pairs.draw(), plain.draw()
        assert torch.equal(drawn[1], -drawn[0])
        assert torch.equal(drawn[3], -drawn[2])
        assert torch.equal(drawn[0], usual[0])
        assert abs(float((drawn[0] * drawn[2]).mean())) < 0.02
        assert abs(float((usual[0] * usual[1]).mean())) < 0.02
        torch.testing.assert_close(drawn.std(dim=(1, 2, 3)), torch.ones(4), atol=0.02, rtol=0)
    alone = ItemNoise(7, [(3, 1)], shape, "cpu", antithetic=True)
    assert torch.equal(alone.draw(), ItemNoise(7, items, shape, "cpu", antithetic=True).draw()[1:2])


def test_an_unknown_sampler_is_named_with_the_known_ones():
    with pytest.raises(UsageError, match="no sampler is called 'magic'.*dds"):
        build_sampler("magic")
