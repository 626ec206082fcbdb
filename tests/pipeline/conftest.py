"""A prior whose behaviour is known: an untrained network is the Wiener filter of N(mean, variance)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from klip_engine.presets import choose_settings
from klip_engine.scoring.klip import ScoreTerm
from klip_engine.settings import SamplingSettings, ScoreSettings
from klip_engine.working_grid import WorkingGrid
from tests.conftest import save_wiener_prior

GRID = WorkingGrid((80, 96), 5.0, 3.0)
WIDE_BLOCKS = replace(
    choose_settings(false_alarms=0.05),
    sampling=SamplingSettings(steps=6, sigma_min=0.006, antithetic=False),
    score=ScoreSettings("wide", (ScoreTerm((0.06, 1.0)),), (15.0,)),
)
"""Blocks that average the noise away: a prior that knows no anatomy leaves much of it in the pulls."""


@pytest.fixture(scope="session")
def prior(tmp_path_factory) -> Path:
    return save_wiener_prior(tmp_path_factory.mktemp("priors") / "wiener", GRID)
