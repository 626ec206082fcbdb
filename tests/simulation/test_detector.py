"""What detectors do wrong: noise and its weights, scatter, dead and drifting elements, gantries that err."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from klip_engine.simulation import SimulationSettings, simulate
from klip_engine.simulation.beam import OneEnergy
from klip_engine.simulation.detector import Faults, read_out
from klip_engine.simulation.polychromatic import ManyEnergies
from tests.simulation.conftest import body, small

SHAPE = (400, 2, 50)


def reading(signal, beam=None, **settings):
    settings = SimulationSettings(**{"dose": "none", **settings})
    faults = Faults.drawn(settings, signal.shape[1:], np.random.default_rng(1))
    generator = torch.Generator().manual_seed(2)
    return read_out(signal, beam or OneEnergy(0.0192), settings, faults, generator), faults


def test_weights_are_the_inverse_variance():
    signal = torch.full(SHAPE, 0.02)
    read, _ = reading(signal, dose="very-low")
    counts = 1e5 * 0.02
    assert read.line_integrals.mean() == pytest.approx(-np.log(0.02), abs=0.001)
    assert read.line_integrals.var() == pytest.approx((counts + 25) / counts**2, rel=0.03)
    assert read.weights.mean() == pytest.approx(1 / read.line_integrals.var(), rel=0.03)


def test_the_water_correction_changes_the_noise_and_the_weights_say_so():
    beam = ManyEnergies(120.0, 0.0192)
    signal = beam.transmission(torch.stack([torch.full(SHAPE, 5.0), torch.zeros(SHAPE)]))
    read, _ = reading(signal, beam, dose="low")
    assert read.line_integrals.mean() == pytest.approx(5.0, abs=0.005)
    assert read.weights.mean() == pytest.approx(1 / read.line_integrals.var(), rel=0.05)


def test_scatter_is_a_share_of_the_signal_behind_the_body():
    signal = torch.ones(3, 1, 50)
    signal[..., 10:40] = 0.1
    signal[..., 20:30] = 0.02
    signal[2] = 1.0
    read, _ = reading(signal, scatter=0.05)
    behind = np.median([0.1] * 20 + [0.02] * 10)
    assert np.exp(-read.line_integrals[0, 0, 25]) == pytest.approx(0.02 + 0.05 * behind, rel=1e-5)
    assert np.exp(-read.line_integrals[0, 0, 0]) == pytest.approx(1 + 0.05 * behind, rel=1e-5)
    assert np.abs(read.line_integrals[2]).max() == 0


def test_dead_elements_have_no_weight_and_drifting_ones_keep_theirs():
    signal = torch.full((6, 4, 50), 0.1)
    read, faults = reading(signal, dead_pixels=0.05, drifting_pixels=0.1, dose="standard")
    assert faults.dead.sum() == 10
    assert (faults.gain != 1).sum() == 20
    assert not (faults.dead & (faults.gain != 1)).any()
    assert (read.weights[:, faults.dead] == 0).all()
    assert (read.line_integrals[:, faults.dead] == 0).all()
    drifting = read.line_integrals[:, faults.gain != 1] - np.log(10)
    assert drifting.mean(axis=0) == pytest.approx(-np.log(faults.gain[faults.gain != 1]), abs=0.01)
    counts = 1e6 * 0.1 * faults.gain[faults.gain != 1]
    assert read.weights[:, faults.gain != 1].mean(axis=0) == pytest.approx(counts**2 / (counts + 25), rel=0.02)


def test_without_noise_there_are_weights_only_where_elements_are_dead():
    signal = torch.full((2, 1, 40), 0.5)
    assert reading(signal)[0].weights is None
    assert reading(signal, drifting_pixels=0.1)[0].weights is None
    weights = reading(signal, dead_pixels=0.1)[0].weights
    assert (weights == 0).sum() == 2 * 4


def test_more_faults_than_a_small_detector_has_elements():
    faults = Faults.drawn(small(dead_pixels=0.5, drifting_pixels=0.5), (1, 3), np.random.default_rng(0))
    assert faults.dead.sum() + (faults.gain != 1).sum() <= 3


@pytest.mark.parametrize("geometry", ["parallel", "fan-flat", "helical"])
def test_a_gantry_that_errs_measures_at_other_angles_than_it_writes(geometry):
    options = {"geometry": geometry, "views": 40, "detector_rows": 4, "row_mm": 9.0}
    right = simulate(body(2), small(**options))
    wrong = simulate(body(2), small(angle_step_error_deg=2.0, **options))
    shaking = simulate(body(2), small(angle_jitter_deg=1.0, **options))
    assert np.array_equal(wrong.trajectory.det_u, right.trajectory.det_u)
    assert np.array_equal(shaking.trajectory.det_u, right.trajectory.det_u)
    errors = [np.abs(wrong.line_integrals[v] - right.line_integrals[v]).max() for v in (0, 1, 5)]
    assert errors[0] == 0
    assert errors[1] > 0.01
    assert errors[2] > errors[1]
    shaken = np.abs(shaking.line_integrals - right.line_integrals).max(axis=(1, 2))
    assert (shaken > 0.001).mean() > 0.9


def test_a_step_error_of_a_whole_step_takes_every_second_view():
    """Views 0, 1, 2 measure what 0, 2, 4 of a right scan do."""
    right = simulate(body(1), small(views=60))
    wrong = simulate(body(1), small(views=60, angle_step_error_deg=6.0))
    for view in (1, 7, 20):
        assert wrong.line_integrals[view] == pytest.approx(right.line_integrals[2 * view], abs=1e-4)
