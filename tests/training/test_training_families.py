"""`klip-engine train` for every family: a bundle comes out that calibration and detection work with."""

from __future__ import annotations

import pytest
import torch

from klip_engine.calibration import calibrate, healthy_reference, keep_reference
from klip_engine.errors import Cancelled, InputError, UsageError
from klip_engine.io.sources import find_sources
from klip_engine.pipeline import detect
from klip_engine.presets import choose_settings
from klip_engine.priors import load_prior
from klip_engine.priors.network import NetworkConfig
from klip_engine.slices import Watch
from klip_engine.training.command import TrainingJob, run_training
from klip_engine.training.dataset import load_slices
from klip_engine.training.trainer import train
from klip_engine.training.training_settings import TrainingSettings, choose_family, default_network
from klip_engine.working_grid import WorkingGrid
from tests.conftest import run_cli

GRID = WorkingGrid((40, 48), 10.0)
TINY = NetworkConfig((8, 8), (1, 1), (False, False), 4, 4, space_to_depth=1)


def _settings(family: str, **changes) -> TrainingSettings:
    defaults = {"images": 16, "batch_size": 4, "network": TINY, "seed": 1, "family": family, "patch": 12}
    return TrainingSettings(**(defaults | changes))


@pytest.mark.parametrize("family", ["patch-edm", "ddpm", "ve"])
def test_training_lowers_the_loss_and_the_bundle_detects(ct_files, family, monkeypatch):
    monkeypatch.setenv("KLIP_CACHE", str(ct_files / "cache"))
    job = TrainingJob(
        data=(ct_files / "patient0.nrrd", ct_files / "patient1.nrrd"),
        validation=(ct_files / "patient2.nrrd",),
        bundle=ct_files / family,
        grid=GRID,
        settings=_settings(family, images=100, learning_rate=2e-2),
    )
    run_training(job, lambda *_: None, lambda: False)
    prior = load_prior(ct_files / family)
    assert prior.family == family
    untrained = 1.0 if family == "patch-edm" else 1 + 1 / prior.denoiser.data_variance  # its answer is x_t itself
    assert prior.training["validation_error"]["1"] < 0.95 * untrained
    card = (ct_files / family / "docs" / "README.md").read_text()
    assert {"patch-edm": "patch", "ddpm": "DDPM", "ve": "variance-exploding"}[family] in card
    assert (ct_files / family / "training" / "progress.png").stat().st_size > 10_000
    settings = choose_settings(steps=3, samples=2, score=None if family == "patch-edm" else "klip")
    healthy = healthy_reference(find_sources([ct_files / "patient1.nrrd"]), GRID, 2, Watch())
    keep_reference(prior, healthy)
    calibrate(prior, settings, "cpu").save(ct_files / family / "null")
    detection = detect(ct_files / "patient2.nrrd", prior, settings)
    assert detection.working.reconstruction.shape[1:] == GRID.shape
    if family != "patch-edm":
        with pytest.raises(UsageError, match="needs a prior that predicts its variance"):
            calibrate(prior, choose_settings(steps=2, samples=2), "cpu")


def test_a_resumed_patch_run_ends_where_an_unbroken_one_does(ct_files):
    data = load_slices(find_sources([ct_files / "table.csv"]), GRID)
    settings = _settings("patch-edm")
    whole = train(data, GRID, ct_files / "whole", settings)
    steps = iter(range(100))
    with pytest.raises(Cancelled):
        train(data, GRID, ct_files / "parts", settings, cancelled=lambda: next(steps) >= 1)
    resumed = train(data, GRID, ct_files / "parts", settings, resume=True)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    for other in (_settings("patch-edm", patch=8), _settings("edm")):
        with pytest.raises(InputError, match="family, network, grid and optimiser"):
            train(data, GRID, ct_files / "whole", other, resume=True)


def test_what_does_not_fit_together_is_said():
    with pytest.raises(UsageError, match="family 'gan'.*edm"):
        _settings("gan")
    with pytest.raises(UsageError, match="multiple of 2, not 13"):
        _settings("patch-edm", patch=13)
    with pytest.raises(UsageError, match="'patch-edm', not 've'"):
        choose_family("ve", True, None)
    with pytest.raises(UsageError, match="--patches"):
        choose_family("edm", False, 32)
    assert choose_family("edm", True, 32) == choose_family("patch-edm", False, 32) == "patch-edm"
    assert 56 % default_network("patch-edm").step == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--patch-size", "32"], "add --patches"),
        (["--patches", "--family", "ddpm"], "not 'ddpm'"),
        (["--patches", "--patch-size", "30"], "multiple of 8, not 30"),
        (["--family", "gan"], "'gan'"),
        (["--noise-levels", "-1.5", "-0.1"], "standard deviation"),
    ],
)
def test_the_command_line_refuses_what_does_not_fit_together(tmp_path, capsys, options, sentence):
    arguments = ["train", "no.nrrd", "-o", tmp_path / "p", "--images", "8", "--device", "cpu", "--progress", "json"]
    code, printed, _ = run_cli(capsys, *arguments, *options)
    assert code == 2
    assert sentence in printed
    assert not (tmp_path / "p").exists()
