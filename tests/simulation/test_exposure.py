"""How far the gantry turns during a view."""

from __future__ import annotations

import numpy as np
import pytest

from klip_engine.errors import UsageError
from klip_engine.simulation import SimulationSettings, simulate
from klip_engine.volume import CTVolume, Geometry

RADIUS_MM = 150.0
SIDE = 384


def _disc() -> CTVolume:
    """A disc of water `RADIUS_MM` behind the axis, so small that intensities add up as line integrals do."""
    x = np.arange(SIDE) - (SIDE - 1) / 2
    hu = np.full((1, SIDE, SIDE), -1000, np.float32)
    hu[0][np.hypot(x, x[:, None] - RADIUS_MM) < 4] = 0
    return CTVolume(hu, Geometry((SIDE, SIDE, 1), (1.0, 1.0, 3.0)))


def _shadow_variance_mm2(exposure_deg: float | None) -> float:
    """Of the disc's shadow at view angle 0, which moves by its radius times the turn."""
    settings = SimulationSettings("parallel", 24, dose="none", exposure_deg=exposure_deg)
    shadow = simulate(_disc(), settings).line_integrals[0, 0].astype(np.float64)
    place = np.arange(len(shadow)) * settings.column_mm
    middle = (shadow * place).sum() / shadow.sum()
    return float((shadow * (place - middle) ** 2).sum() / shadow.sum())


def test_a_turn_during_a_view_smears_by_the_arc_it_covers():
    still = _shadow_variance_mm2(0.0)
    # Four rays stand for the turn, in the middles of its quarters (and of the bin's, not quite independently).
    for turn_deg in (3.0, 7.5):
        wide = RADIUS_MM * np.radians(turn_deg)
        smeared = wide**2 / 12 * (1 - 1 / 16)
        assert _shadow_variance_mm2(turn_deg) - still == pytest.approx(smeared, rel=0.2)


def test_sparse_views_are_pulsed_unless_another_exposure_is_asked_for():
    assert SimulationSettings("parallel", 24).exposed_deg == 0.5
    assert SimulationSettings("fan-curved", 1440).exposed_deg == 0.25
    assert abs(_shadow_variance_mm2(None) - _shadow_variance_mm2(0.0)) < 0.5


@pytest.mark.parametrize("turn_deg", [-1.0, 7.6])
def test_an_exposure_longer_than_the_step_is_refused(turn_deg):
    with pytest.raises(UsageError, match="exposure_deg"):
        SimulationSettings("parallel", 24, exposure_deg=turn_deg)
