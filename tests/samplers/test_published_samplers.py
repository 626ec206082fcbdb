"""DPS, PaDIS, predictor-corrector and guided DDPM against their papers' algorithms and closed-form posteriors."""

from __future__ import annotations

import math

import pytest
import torch

from klip_engine.errors import UsageError
from klip_engine.operators import GaussianBlur, Identity, LinearOperator, build_operator
from klip_engine.priors.base import Denoiser, PatchTiled
from klip_engine.samplers import DDPM, DPS, ItemNoise, Measurement, PaDIS, PredictorCorrector, Step, build_sampler
from klip_engine.samplers.guidance import ResidualGuidance, operator_norm
from klip_engine.slices import NetworkMeter
from tests.conftest import GaussianPrior
from tests.samplers.closed_forms import Mask, SmoothPrior, TiledPrior, dense

SHAPE = (8, 10)
MEAN, VARIANCE, NOISE_VARIANCE = 0.3, 0.25, 0.04
POSTERIOR_VARIANCE = 1 / (1 / VARIANCE + 1 / NOISE_VARIANCE)


def _prior() -> GaussianPrior:
    return GaussianPrior(torch.full((1, 1, *SHAPE), MEAN), VARIANCE)


def _noise(items: int = 1, shape: tuple[int, int] = SHAPE, seed: int = 0) -> ItemNoise:
    return ItemNoise(seed, [(0, sample) for sample in range(items)], (1, *shape), "cpu")


def _measured(operator: LinearOperator, seed: int = 5) -> Measurement:
    truth = torch.randn(1, 1, *operator.image_shape, generator=torch.Generator().manual_seed(seed))
    return Measurement(operator, operator.forward(truth), NOISE_VARIANCE)


@torch.no_grad()
def _run(sampler, prior: Denoiser, measurement: Measurement, noise: ItemNoise) -> list[Step]:
    return list(sampler(prior, measurement, noise))


def _sample(sampler, prior: Denoiser, measurement: Measurement, noise: ItemNoise) -> torch.Tensor:
    return _run(sampler, prior, measurement, noise)[-1].posterior_mean


# --- the gradient that DPS, PaDIS and DDPM share ---


@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_that_of_the_weighted_residual_norm(weighted):
    operator = build_operator("parallel", SHAPE, 3.0, views=5)
    measurement = _measured(operator)
    spread = 0.5 + torch.rand(measurement.data.shape, generator=torch.Generator().manual_seed(1))
    if weighted:
        measurement = Measurement(operator, measurement.data, NOISE_VARIANCE * spread)
    x, sigma = torch.full((1, 1, *SHAPE), 0.7), 0.8
    prior, gradient = ResidualGuidance(measurement)(_prior(), x, sigma)
    a = dense(operator)
    a_scaled, y = a / torch.linalg.matrix_norm(a, 2), measurement.data.flatten().double()
    residual = y / torch.linalg.matrix_norm(a, 2) - a_scaled @ prior.mean.flatten().double()
    weights = (1 / spread / (1 / spread).mean()).flatten().double() if weighted else torch.ones_like(y)
    jacobian = VARIANCE / (VARIANCE + sigma**2)
    exact = -jacobian * (a_scaled.T @ (weights * residual)) / (weights * residual**2).sum().sqrt()
    torch.testing.assert_close(gradient.flatten().double(), exact, rtol=2e-3, atol=1e-5)


def test_the_operator_norm_is_its_largest_singular_value():
    operator = build_operator("parallel", SHAPE, 3.0, views=5)
    largest = float(torch.linalg.matrix_norm(dense(operator), 2))
    assert operator_norm(operator, torch.zeros(1, *operator.measurement_shape)) == pytest.approx(largest, rel=1e-3)


# --- each sampler against its paper's algorithm, in the paper's own variables ---


@pytest.mark.parametrize("sampler", [DDPM(steps=12, zeta=0.4), DPS(12, 20.0, 0.05, zeta=0.4)])
def test_dps_and_ddpm_are_algorithm_1_of_dps_in_variance_preserving_time(sampler):
    """Chung et al. 2023, Algorithm 1: Ho et al. 2020, equation 7, minus zeta times a gradient."""
    operator = GaussianBlur(SHAPE, kernel_size=5, sigma=1.0)  # of norm 1, as the papers' operators
    measurement, prior, noise = _measured(operator), _prior(), _noise()
    steps = _run(sampler, prior, measurement, _noise())
    alpha_bars = [1 / (1 + sigma**2) for sigma in sampler.levels]
    x = math.sqrt(1 - alpha_bars[0]) * noise.draw()
    for step, alpha_bar, previous in zip(steps, alpha_bars, [*alpha_bars[1:], 1.0], strict=True):
        x.requires_grad_()
        x0 = prior.denoise(x / math.sqrt(alpha_bar), math.sqrt((1 - alpha_bar) / alpha_bar)).mean
        (gradient,) = torch.autograd.grad(
            (measurement.data - operator.forward(x0)).norm(), x
        )  # the blur has norm 1
        x, x0 = x.detach(), x0.detach()
        beta = 1 - alpha_bar / previous
        update = -sampler.zeta * gradient
        torch.testing.assert_close(step.update, update / math.sqrt(beta), rtol=2e-3, atol=2e-5)
        assert step.diffusion == pytest.approx(math.sqrt(beta))
        x = (
            math.sqrt(previous) * beta / (1 - alpha_bar) * x0
            + math.sqrt(alpha_bar / previous) * (1 - previous) / (1 - alpha_bar) * x
            + update
        )
        if previous < 1:
            x = x + math.sqrt(beta * (1 - previous) / (1 - alpha_bar)) * noise.draw()
    torch.testing.assert_close(steps[-1].posterior_mean, x, rtol=1e-3, atol=1e-4)


def test_ddpm_visits_the_noise_levels_of_linear_betas():
    cumulative = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    expected = ((1 - cumulative) / cumulative).sqrt().flip(0).tolist()
    assert DDPM(steps=1000).levels == pytest.approx(expected)
    assert DDPM(steps=100).levels[::99] == pytest.approx([expected[0], expected[-1]])


def test_padis_is_its_algorithm_1():
    """Hu et al. 2024, Algorithm 1, with the step size alpha = sigma^2 / 2 of its published settings."""
    measurement, prior, noise = _measured(Identity(SHAPE)), _prior(), _noise()
    sampler = PaDIS(steps=5, sigma_max=2.0, sigma_min=0.1, zeta=0.2, langevin_steps=3, operator_norm=1.0)
    steps = _run(sampler, prior, measurement, _noise())
    x = 2.0 * noise.draw()
    for number, step in enumerate(steps):
        sigma = (2.0 ** (1 / 7) + number / 4 * (0.1 ** (1 / 7) - 2.0 ** (1 / 7))) ** 7
        assert step.sigma == pytest.approx(sigma)
        total = torch.zeros_like(x)
        for _ in range(3):
            x0 = prior.denoise(x, sigma).mean
            residual = measurement.data - x0
            gradient = -VARIANCE / (VARIANCE + sigma**2) * residual / residual.norm()
            x = x - 0.2 * gradient + sigma**2 / 4 * (x0 - x) / sigma**2
            if number < 4:
                x = x + math.sqrt(sigma**2 / 2) * noise.draw()
            total -= 0.2 * gradient
        torch.testing.assert_close(step.update, total / math.sqrt(sigma), rtol=1e-3, atol=1e-5)
        pull = step.posterior_mean - step.prior_mean
        torch.testing.assert_close(pull, sigma**2 * (total / (sigma**2 / 4)) / 3, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(steps[-1].posterior_mean, x, rtol=1e-3, atol=1e-5)


def test_predictor_corrector_is_its_algorithm_where_pixels_are_measured():
    """Song et al. 2022, Algorithm 2, T = 1: measured pixels become lambda y_t + (1 - lambda) x_t."""
    mask = (torch.arange(SHAPE[1]) < 4).expand(SHAPE).float()
    measurement, prior, noise = _measured(Mask(mask)), _prior(), _noise()
    sampler = PredictorCorrector(20, 10.0, 0.05, snr=0.2, coefficient=0.7, keep=5)
    steps = _run(sampler, prior, measurement, _noise())

    def merged(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return torch.where(mask > 0, 0.7 * (measurement.data + sigma * noise.draw()) + 0.3 * x, x)

    x = 10.0 * noise.draw()
    rate = math.sqrt(2 * math.log(10.0 / 0.05))
    for number, (step, following) in enumerate(zip(steps, [*sampler.levels[1:], 0.0], strict=True)):
        sigma = 10.0 * (0.05 / 10.0) ** (number / 19)
        x = merged(x, sigma)
        score, z = (prior.denoise(x, sigma).mean - x) / sigma**2, noise.draw()
        epsilon = 2 * (0.2 * z.norm() / score.norm()) ** 2
        x = x + epsilon * score + (2 * epsilon).sqrt() * z
        before, x = x, merged(x, sigma)
        assert (step.update is None) == (number % 5 != 0)
        if step.update is not None:
            assert step.diffusion == pytest.approx(sigma * rate)
            torch.testing.assert_close(step.update, (x - before) / (sigma * rate), rtol=1e-3, atol=1e-4)
        mean = prior.denoise(x, sigma).mean
        if following:
            covered = sigma**2 - following**2
            pull = step.posterior_mean - step.prior_mean
            torch.testing.assert_close(pull, sigma**2 * (x - before) / covered, rtol=1e-3, atol=1e-3)
            x = x + covered * (mean - x) / sigma**2 + math.sqrt(covered) * noise.draw()
    torch.testing.assert_close(
        steps[-1].posterior_mean, torch.where(mask > 0, measurement.data, mean), rtol=1e-3, atol=1e-4
    )


def test_predictor_corrector_ends_on_the_measurement_of_a_scan():
    operator = build_operator("parallel", SHAPE, 3.0, views=3)
    measurement = _measured(operator)
    sample = _sample(PredictorCorrector(20, 10.0, 0.05, iterations=60), _prior(), measurement, _noise())
    error = (operator.forward(sample) - measurement.data).norm() / measurement.data.norm()
    assert float(error) < 1e-3


# --- what is sampled ---


@pytest.mark.parametrize(
    "sampler",
    [
        DPS(120, 30.0, 0.01, zeta=0.0),
        DDPM(steps=500, zeta=0.0),
        PaDIS(steps=100, sigma_min=0.02, zeta=0.0),
    ],
    ids=["dps", "ddpm", "padis"],
)
def test_without_guidance_the_prior_is_sampled(sampler):
    samples = 150
    measurement = _measured(Identity(SHAPE)).repeated(samples)
    drawn = _sample(sampler, _prior(), measurement, _noise(samples))
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(drawn.var(dim=0).mean()) == pytest.approx(VARIANCE, rel=0.1)


def test_predictor_corrector_samples_the_prior_where_nothing_is_measured():
    """Known bias (docs/samplers.md): measured pixels take the value of y with its noise, and no spread at all."""
    samples = 150
    mask = (torch.arange(SHAPE[1]) < 4).expand(SHAPE).float()
    measurement = _measured(Mask(mask)).repeated(samples)
    drawn = _sample(PredictorCorrector(150, 20.0, 0.01), _prior(), measurement, _noise(samples))
    free = drawn[..., 4:]
    assert float(free.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(free.var(dim=0).mean()) == pytest.approx(VARIANCE, rel=0.1)
    torch.testing.assert_close(drawn[..., :4], measurement.data[..., :4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "sampler",
    [
        DPS(150, 30.0, 0.01, zeta=1.0),
        DDPM(steps=150, zeta=1.0),
        PaDIS(steps=40, sigma_min=0.01, zeta=0.3, operator_norm=1.0),
    ],
    ids=["dps", "ddpm", "padis"],
)
def test_guidance_by_the_residual_norm_overshoots_the_posterior(sampler):
    """The bias these are known for (Boys et al. 2023): the mean goes past the posterior's to y, the variance to far
    below the posterior's."""
    samples = 60
    y = torch.full((1, 1, *SHAPE), -0.5)
    measurement = Measurement(Identity(SHAPE), y, NOISE_VARIANCE).repeated(samples)
    drawn = _sample(sampler, _prior(), measurement, _noise(samples))
    posterior_mean = POSTERIOR_VARIANCE * (MEAN / VARIANCE - 0.5 / NOISE_VARIANCE)
    assert float(drawn.mean()) < posterior_mean - 0.05
    assert float(drawn.mean()) == pytest.approx(-0.5, abs=0.02)
    assert float(drawn.var(dim=0).mean()) < POSTERIOR_VARIANCE / 4


@pytest.mark.parametrize(
    "sampler",
    [
        DPS(200, 20.0, 0.01, zeta=0.3),
        PaDIS(steps=50, sigma_min=0.01, zeta=0.03),
        PredictorCorrector(150, 20.0, 0.01),
    ],
    ids=["dps", "padis", "pc"],
)
def test_reconstructions_from_few_views_beat_the_pseudo_inverse(sampler):
    """With step sizes for so small an image and so few levels; docs/samplers.md has the published ones on a CT."""
    operator = build_operator("parallel", (16, 16), 3.0, views=6)
    assert _improvement(sampler, operator, noise=0.0) > 3


def test_deblurring_by_ddpm_beats_the_pseudo_inverse():
    """With the noise of 0.05 that the DPS paper's measurements carry."""
    operator = GaussianBlur((16, 16), kernel_size=9, sigma=2.0)
    assert _improvement(DDPM(steps=100), operator, noise=0.05) > 3


def _improvement(sampler, operator: LinearOperator, noise: float) -> float:
    """Smallest ratio over four images of the pseudo-inverse's mean square error to the sampler's."""
    shape = operator.image_shape
    prior = SmoothPrior(shape, mean=-0.2, variance=0.1, length=3.0)
    truth = torch.cat([prior.draw(seed) for seed in range(4)])
    data = operator.forward(truth)
    data = data + noise * torch.randn(data.shape, generator=torch.Generator().manual_seed(9))
    error = _sample(sampler, prior, Measurement(operator, data, max(noise, 0.01) ** 2), _noise(4, shape)) - truth
    classical = operator.pseudo_inverse(data) - truth
    ratios = classical.square().mean(dim=(1, 2, 3)) / error.square().mean(dim=(1, 2, 3))
    return float(ratios.min())


# --- batches, patches, costs, options ---

SMALL = [
    DPS(6, 5.0, 0.1),
    DDPM(steps=6),
    PaDIS(4, 5.0, 0.1, langevin_steps=3),
    PredictorCorrector(6, 5.0, 0.1),
]
NAMES = ["dps", "ddpm", "padis", "pc"]


@pytest.mark.parametrize("sampler", SMALL, ids=NAMES)
def test_an_item_does_not_depend_on_its_batch(sampler):
    operator = build_operator("parallel", SHAPE, 3.0, views=5)
    truth = torch.randn(3, 1, *SHAPE, generator=torch.Generator().manual_seed(2))
    items, tiled = [(4, 0), (4, 1), (9, 0)], TiledPrior(torch.full((1, 1, *SHAPE), MEAN), VARIANCE)

    def run(part: slice) -> torch.Tensor:
        noise = ItemNoise(3, items[part], (1, *SHAPE), "cpu")
        return _sample(sampler, tiled, Measurement(operator, operator.forward(truth[part]), 0.1), noise)

    together = run(slice(0, 3))
    assert torch.equal(together, run(slice(0, 3)))
    alone = torch.cat([run(slice(i, i + 1)) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", SMALL, ids=NAMES)
def test_network_evaluations_are_counted_and_as_many_as_stated(sampler):
    meter = NetworkMeter(_prior())
    steps = _run(sampler, meter, _measured(Identity(SHAPE)).repeated(2), _noise(2))
    assert [step.sigma for step in steps] == sampler.levels
    assert meter.evaluations == 2 * sampler.evaluations


def test_padis_takes_a_new_patch_grid_at_every_evaluation():
    tiled = TiledPrior(torch.full((1, 1, *SHAPE), MEAN), VARIANCE)
    meter = NetworkMeter(tiled)
    assert isinstance(meter, PatchTiled)
    assert not isinstance(NetworkMeter(_prior()), PatchTiled)
    sampler = PaDIS(8, 5.0, 0.1)
    metered = _sample(sampler, meter, _measured(Identity(SHAPE)), _noise())
    offsets, tiled.offsets = tiled.offsets, []
    assert meter.evaluations == len(offsets) == sampler.evaluations == 80
    assert {row % 4 for row, _ in offsets} == {column % 4 for _, column in offsets} == set(range(4))
    assert len(set(offsets)) > 10
    assert torch.equal(metered, _sample(sampler, tiled, _measured(Identity(SHAPE)), _noise()))
    assert tiled.offsets == offsets
    _sample(sampler, tiled, _measured(Identity(SHAPE)), _noise(seed=1))
    assert tiled.offsets[80:] != offsets


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_named_with_the_known_ones(name):
    with pytest.raises(UsageError, match=f"the sampler '{name}' has no option magic; it has: steps"):
        build_sampler(name, {"magic": 1.0})


def test_options_reach_the_sampler_but_cannot_contradict_what_is_common():
    assert build_sampler("padis", {"zeta": 0.5, "rho": 3}, steps=9, sigma_max=2.0, sigma_min=0.1) == PaDIS(
        9, 2.0, 0.1, rho=3, zeta=0.5
    )
    with pytest.raises(UsageError, match="has no option steps"):  # it has one, where all samplers have it
        build_sampler("pc", {"steps": 7}, steps=9)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("dps", {"zeta": -1}, "zeta is -1"),
        ("padis", {"langevin_steps": 0}, "at least 1 Langevin step"),
        ("padis", {"zeta": math.nan}, "zeta from 0 on"),
        ("pc", {"coefficient": 1.5}, "coefficient <= 1"),
        ("pc", {"keep": 0}, "keep from 1 on"),
        ("ddpm", {"train_steps": 50}, "takes 2 to 50 steps"),
        ("ddpm", {"beta_max": 2}, "beta_max < 1"),
    ],
)
def test_options_out_of_range_are_refused(name, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        build_sampler(name, options)
