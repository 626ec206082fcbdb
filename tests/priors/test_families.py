"""Each family goes through a bundle and comes back as the same function."""

from __future__ import annotations

import json

import pytest
import torch

from klip_engine.errors import PriorError
from klip_engine.priors import load_prior, save_bundle
from klip_engine.priors.architectures import build_network
from klip_engine.priors.families import FAMILIES
from klip_engine.priors.network import (
    NetworkConfig,
    build_ddpm,
    build_denoiser,
    build_patch_denoiser,
    build_ve,
)
from klip_engine.priors.plain_edm import PlainEDMDenoiser
from klip_engine.priors.scaled import ValueScale, scaled
from klip_engine.working_grid import WorkingGrid

TINY = NetworkConfig((8, 8), (1, 1), (False, False), 4, 4, space_to_depth=1)
GRID = WorkingGrid((24, 32), 8.0)
BUILD = {
    "edm": build_denoiser,
    "patch-edm": lambda config, shape: build_patch_denoiser(config, shape, patch=12),
    "ddpm": build_ddpm,
    "ve": build_ve,
    "edm-song": lambda _, shape: _edm_song(shape),
    "scaled": lambda _, shape: scaled(_edm_song(shape), ValueScale(-1.0, 0.5)),
}


def _edm_song(shape):
    arguments = {
        "img_resolution": 32,
        "in_channels": 1,
        "out_channels": 1,
        "model_channels": 8,
        "channel_mult": [1, 2],
    }
    network = build_network(arguments | {"num_blocks": 1, "dropout": 0.0}, "klip_engine.priors.song_unet.SongUNet")
    return PlainEDMDenoiser(network, shape, space_to_depth=1, data_mean=0.0)


def _filled(name: str):
    torch.manual_seed(0)
    denoiser = BUILD[name](TINY, GRID.shape)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return denoiser


def _save(folder, denoiser, grid=GRID, **changes):
    save_bundle(folder, denoiser, grid, training={}, model_card="", description="", **changes)


def test_every_family_is_tested_here():
    elsewhere = {"diffusers", "gaussian"}  # test_diffusers_pipeline (it needs an extra), test_gaussian
    assert set(BUILD) | elsewhere == set(FAMILIES)


@pytest.mark.parametrize("name", BUILD)
def test_a_bundle_comes_back_as_the_same_function(tmp_path, name):
    denoiser = _filled(name)
    _save(tmp_path / name, denoiser, dtype=torch.float32)
    prior = load_prior(tmp_path / name)
    assert (prior.family, prior.grid) == (name, GRID)
    assert type(prior.denoiser) is type(denoiser)
    assert prior.denoiser.config() == denoiser.config()
    x = torch.randn(2, 1, *GRID.shape, generator=torch.Generator().manual_seed(0))
    for sigma in (0.02, 0.7, 30.0):
        torch.testing.assert_close(prior.denoiser.denoise(x, sigma).mean, denoiser.denoise(x, sigma).mean)
    for field in ("sigma_min", "sigma_max", "data_variance", "channels", "image_shape"):
        assert getattr(prior.denoiser, field) == getattr(denoiser, field)


@pytest.mark.parametrize("name", ["patch-edm", "ddpm", "ve"])
def test_the_family_and_its_settings_are_part_of_the_hash(tmp_path, name):
    _save(tmp_path / name, _filled(name))
    metadata = tmp_path / name / "configs" / "metadata.json"
    content = json.loads(metadata.read_text())
    content["klip"].pop("family")
    metadata.write_text(json.dumps(content))
    with pytest.raises(PriorError, match="damaged"):
        load_prior(tmp_path / name)
    _save(tmp_path / name, _filled(name))
    config = tmp_path / name / "configs" / "inference.json"
    section = "preconditioning" if name == "patch-edm" else "diffusion"
    content = json.loads(config.read_text())
    content[section]["sigma_max" if name != "ddpm" else "data_variance"] = 9.0
    config.write_text(json.dumps(content))
    with pytest.raises(PriorError, match="hash"):
        load_prior(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("patch-edm", {"patch": 0}, "patches of 0 pixels"),
        ("patch-edm", {"patch": 7, "space_to_depth": 2}, "no multiple"),
        ("patch-edm", {"surprise": 1}, "surprise"),
        ("ddpm", {"betas": [0.5]}, "betas"),
        ("ddpm", {"betas": "linear"}, "damaged"),
        ("ve", {"image_shape": 3}, "damaged"),
    ],
)
def test_a_damaged_configuration_gives_a_sentence(tmp_path, name, change, sentence):
    _save(tmp_path / name, _filled(name))
    path = tmp_path / name / "configs" / "inference.json"
    content = json.loads(path.read_text())
    content["preconditioning" if name == "patch-edm" else "diffusion"].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(PriorError, match=f"damaged.*{sentence}|{sentence}"):
        load_prior(tmp_path / name)


@pytest.mark.parametrize("build", [build_ddpm, build_ve])
def test_priors_of_colour_pictures_come_back(tmp_path, build):
    _save(tmp_path / "colour", build(TINY, (16, 16), 3), grid=None)
    prior = load_prior(tmp_path / "colour")
    assert (prior.grid, prior.denoiser.channels) == (None, 3)
    assert prior.denoiser.denoise(torch.zeros(1, 3, 16, 16), 1.0).mean.shape == (1, 3, 16, 16)
    with pytest.raises(PriorError, match="3 channels.*do not fit the working grid"):
        _save(tmp_path / "ct", build(TINY, (24, 32), 3))
