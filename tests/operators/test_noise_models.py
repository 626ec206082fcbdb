"""Noise: moments against their closed forms, units, and independence of the batch."""

from __future__ import annotations

import math

import pytest
import torch

from klip_engine.errors import UsageError
from klip_engine.operators import (
    NOISE_PRESETS,
    GaussianNoise,
    TransmissionNoise,
    build_operator,
    hu_to_mu,
    line_integrals_of_hu,
    mu_to_hu,
    noise_preset,
)

DRAWS = 200_000


@pytest.mark.parametrize("preset", ["standard", "low", "very-low"])
@pytest.mark.parametrize("line_integral", [0.0, 2.0, 5.0])
def test_first_order_moments_of_the_line_integrals(preset, line_integral, rng):
    """With N = I0 exp(-p): variance (N + sigma_e^2) / N^2, bias half of it, weight its inverse."""
    noise = NOISE_PRESETS[preset]
    counts = noise.i0 * math.exp(-line_integral)
    variance = (counts + noise.electronic_sigma**2) / counts**2
    noisy = noise.apply(torch.full((1, DRAWS), line_integral, dtype=torch.float64), rng)
    measured = noisy.measurement
    assert float(measured.mean()) - line_integral == pytest.approx(
        variance / 2, abs=5 * math.sqrt(variance / DRAWS)
    )
    assert float(measured.var()) == pytest.approx(variance, rel=0.03)
    assert float(noisy.weights.mean()) == pytest.approx(1 / variance, rel=0.02)


def test_starved_rays_are_bounded(rng):
    standard = NOISE_PRESETS["standard"].apply(torch.full((1, 1000), 30.0), rng)
    assert float(standard.measurement.max()) == 9.0
    assert torch.isfinite(standard.weights).all()
    assert (standard.weights > 0).all()
    lodopab = NOISE_PRESETS["lodopab"].apply(torch.full((1, 1000), 30.0), rng)
    torch.testing.assert_close(lodopab.measurement, torch.full((1, 1000), math.log(4096 / 0.1)))


@pytest.mark.parametrize("noise", [NOISE_PRESETS["low"], GaussianNoise(0.1)], ids=["transmission", "gaussian"])
def test_an_item_has_its_noise_whatever_the_batch(noise):
    ideal = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(0))
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]
    together = noise.apply(ideal, generators).measurement
    alone = noise.apply(ideal[1:2], [torch.Generator().manual_seed(6)]).measurement
    torch.testing.assert_close(alone, together[1:2], rtol=0, atol=0)
    first_of_one = noise.apply(ideal[:1], torch.Generator().manual_seed(5)).measurement
    torch.testing.assert_close(first_of_one, together[:1], rtol=0, atol=0)


def test_the_global_generator_is_not_touched(rng):
    before = torch.random.get_rng_state()
    NOISE_PRESETS["low"].apply(torch.ones(2, 3, 4), rng)
    GaussianNoise(0.1).apply(torch.ones(2, 3, 4), rng)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_gaussian_moments(rng):
    noisy = GaussianNoise(0.2).apply(torch.full((1, DRAWS), 3.0, dtype=torch.float64), rng)
    assert float(noisy.measurement.mean()) == pytest.approx(3.0, abs=5 * 0.2 / math.sqrt(DRAWS))
    assert float(noisy.measurement.std()) == pytest.approx(0.2, rel=0.01)
    assert noisy.weights.unique().tolist() == pytest.approx([25.0])


def test_presets_are_those_of_the_publications():
    assert {name: preset.i0 for name, preset in NOISE_PRESETS.items()} == {
        "standard": 1e6,
        "low": 2.5e5,
        "very-low": 1e5,
        "lodopab": 4096,
    }
    assert NOISE_PRESETS["lodopab"].mu_water_per_mm == pytest.approx(20 / 1000)


def test_hounsfield_units():
    hu = torch.tensor([-1000.0, 0.0, 1000.0])
    torch.testing.assert_close(hu_to_mu(hu), torch.tensor([0.0, 0.0192, 0.0384]))
    torch.testing.assert_close(mu_to_hu(hu_to_mu(hu)), hu)
    assert float(hu_to_mu(torch.tensor(-1024.0))) == 0


def test_a_beam_through_200_mm_of_water():
    """192 rows of 1 mm, the middle 100 of them water: p = 0.0192 * 100."""
    hu = torch.full((1, 1, 192, 40), -1000.0)
    hu[:, :, 46:146] = 0
    operator = build_operator("parallel", (192, 40), 1.0, views=1, detector_count=5)
    torch.testing.assert_close(line_integrals_of_hu(operator, hu), torch.full((1, 1, 5), 1.92))


def test_impossible_noise_is_refused_by_name(rng):
    with pytest.raises(UsageError, match="i0"):
        TransmissionNoise(i0=0)
    with pytest.raises(UsageError, match="electronic_sigma"):
        TransmissionNoise(i0=1e5, electronic_sigma=-1)
    with pytest.raises(UsageError, match="sigma"):
        GaussianNoise(0)
    with pytest.raises(UsageError, match=r"loud.*standard, low, very-low, lodopab"):
        noise_preset("loud")
    with pytest.raises(UsageError, match="one generator or 3"):
        GaussianNoise(1).apply(torch.zeros(3, 2), [rng, rng])
