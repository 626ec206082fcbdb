"""The presets klip-pc, klip-padis and klip-ddpm-deblur hold the published settings, and run."""

from __future__ import annotations

import math

import pytest
import torch

from klip_engine.errors import UsageError
from klip_engine.measurement import SimulatedScanner
from klip_engine.operators import Identity
from klip_engine.presets import PRESETS, PUBLISHED_PRESETS, choose_settings
from klip_engine.samplers import DDPM, DPS, PaDIS, PredictorCorrector
from klip_engine.scoring.klip import ScoreTerm
from klip_engine.settings import DetectionSettings, OperatorSettings, SamplingSettings
from klip_engine.slices import NetworkMeter, score_slices
from tests.conftest import GaussianPrior


def test_they_hold_the_published_settings():
    assert PRESETS["klip-pc"].sampling.build() == PredictorCorrector(
        1000, 128.0, 0.01, snr=0.246, coefficient=0.841, keep=10
    )
    assert PRESETS["klip-padis"].sampling.build() == PaDIS(100, 10.0, 0.003, rho=7.0, langevin_steps=10, zeta=0.3)
    assert PRESETS["klip-ddpm-deblur"].sampling.build() == DDPM(
        steps=100, train_steps=1000, beta_min=1e-4, beta_max=0.02, zeta=3.0
    )
    samples = {name: preset.sampling.samples for name, preset in PUBLISHED_PRESETS.items()}
    assert samples == {"klip-pc": 8, "klip-padis": 5, "klip-ddpm-deblur": 8}
    evaluations = {name: preset.sampling.evaluations for name, preset in PUBLISHED_PRESETS.items()}
    assert evaluations == {"klip-pc": 2000 * 8, "klip-padis": 1000 * 5, "klip-ddpm-deblur": 100 * 8}
    assert not any(preset.sampling.antithetic for preset in PUBLISHED_PRESETS.values())
    assert {PRESETS[name].operator.views for name in ("klip-pc", "klip-padis")} == {24}


@pytest.mark.parametrize("name", PUBLISHED_PRESETS)
def test_another_operator_leaves_the_published_sampler_alone(name):
    chosen = choose_settings(name, operator="fan-flat")
    assert chosen.sampling == PRESETS[name].sampling
    assert chosen.operator.name == "fan-flat"
    assert chosen.operator.views == PRESETS[name].operator.views
    assert not chosen.operator.blur((64, 64))


def test_nothing_of_the_preset_s_operator_stays_with_another():
    assert choose_settings("deblur", operator="identity").operator == OperatorSettings()
    assert choose_settings("deblur", operator="identity").sampling == SamplingSettings()
    scan = choose_settings("low-dose", operator="fan-curved").operator
    assert (scan.views, scan.dose) == (180, "very-low")


def test_their_windows_are_the_published_kept_steps():
    """Steps [65, 85) of 100: geometric levels, rho 7 and linear betas each have a formula for them."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    cumulative = torch.cumprod(1 - betas, 0)

    def geometric(kept: int) -> float:
        return 128 * (0.01 / 128) ** (10 * kept / 999)

    def karras(kept: int) -> float:
        return (10 ** (1 / 7) + kept / 99 * (0.003 ** (1 / 7) - 10 ** (1 / 7))) ** 7

    def linear_betas(kept: int) -> float:
        bar = float(cumulative[round(999 * (1 - kept / 99))])
        return math.sqrt((1 - bar) / bar)

    formulas = {"klip-pc": geometric, "klip-padis": karras, "klip-ddpm-deblur": linear_betas}
    for name, formula in formulas.items():
        (term,) = PRESETS[name].score.terms
        assert term.weighting == "plain"
        assert term.window == pytest.approx((formula(85), formula(65)))
        kept = [level for level in PRESETS[name].sampling.build().levels if term.window[0] < level * (1 - 1e-9)]
        assert sum(level <= term.window[1] * (1 + 1e-9) for level in kept) in (20, 200)


def test_they_come_back_from_a_result():
    for preset in PUBLISHED_PRESETS.values():
        assert DetectionSettings.from_dict(preset.to_dict()) == preset


def test_another_sampler_does_not_inherit_options():
    assert choose_settings("klip-padis", sampler="dps").sampling.sampler == "dps"
    assert choose_settings("klip-pc", sampler="dds", steps=20).sampling.options == {}


@pytest.mark.parametrize(
    "sampler", [DPS(5, 3.0, 0.05), PaDIS(3, 3.0, 0.05), PredictorCorrector(5, 3.0, 0.05), DDPM(steps=5)]
)
def test_every_sampler_scores_slices(sampler):
    shape = (8, 10)
    meter = NetworkMeter(GaussianPrior(torch.zeros(1, 1, *shape), 0.25))
    told = []
    meter.watch.progress = lambda *event: told.append(event)
    scored = score_slices(
        torch.rand(3, 1, *shape, generator=torch.Generator().manual_seed(1)),
        SimulatedScanner(Identity(shape), 0.01, None, 0),
        meter,
        sampler,
        [ScoreTerm()],
        samples=2,
        seed=0,
        batch_slices=2,
        device="cpu",
    )
    assert scored.density.isfinite().all()
    assert scored.density.amin() >= 0
    assert scored.density.amax() > 0
    assert scored.reconstruction.isfinite().all()
    assert meter.evaluations == 3 * 2 * sampler.evaluations
    assert told[-1][1:] == (3 * 2 * len(sampler.levels),) * 2


@pytest.mark.parametrize(
    ("plain", "sentence"),
    [
        ({"smapling": {}}, "the detection settings have no field smapling; there are: operator, sampling"),
        ({"sampling": {"optoins": {}}}, "the sampling settings have no field optoins; .* options"),
        ({"score": {"nme": "x"}}, "the score settings have no field nme; there are: name"),
        ({"sampling": 3}, "not settings of a detection"),
    ],
)
def test_a_settings_file_with_a_slip_is_told_what_there_is(plain, sentence):
    with pytest.raises(UsageError, match=sentence):
        DetectionSettings.from_dict(plain)
