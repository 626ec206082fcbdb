"""A prior whose behaviour is known: an untrained network is the Wiener filter of N(mean, variance)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from klip_engine.presets import choose_settings
from klip_engine.priors import save_bundle
from klip_engine.priors.network import NetworkConfig, build_denoiser
from klip_engine.scoring.klip import ScoreTerm
from klip_engine.settings import SamplingSettings, ScoreSettings
from klip_engine.volume import WorkingGrid

GRID = WorkingGrid((80, 96), 5.0, 3.0)
NETWORK = NetworkConfig((8, 8), (1, 1), (False, False), 4, 4)
WIDE_BLOCKS = replace(
    choose_settings(false_alarms=0.05),
    sampling=SamplingSettings(steps=6, sigma_min=0.006, antithetic=False),
    score=ScoreSettings("wide", (ScoreTerm((0.06, 1.0)),), (15.0,)),
)
"""Blocks that average the noise away: a prior that knows no anatomy leaves much of it in the pulls."""


@pytest.fixture(scope="session")
def prior(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("priors") / "wiener"
    save_bundle(
        folder,
        build_denoiser(NETWORK, GRID.shape),
        GRID,
        training={"patients": 0},
        model_card="# wiener\n",
        description="a Gaussian prior",
    )
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    """Tests neither read nor write the user's cache; they share one of their own."""
    folder = Path(tmp_path_factory.getbasetemp()) / "klip-cache"
    monkeypatch.setenv("KLIP_CACHE", str(folder))
    return folder
