"""A few words in a file can describe a network that no memory holds: it is refused before it is made."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from klip_engine.errors import PriorError, UsageError
from klip_engine.priors import architectures, load_prior, save_bundle
from klip_engine.priors.architectures import build_network, loaded_network, network_from, parameters_at_most
from klip_engine.priors.ddpm import DDPMDenoiser
from klip_engine.priors.diffusers_pipeline import schedule_betas
from klip_engine.priors.edm import EDMDenoiser
from klip_engine.priors.importing import ImportSettings, import_prior
from klip_engine.priors.network import NetworkConfig, build_denoiser
from klip_engine.priors.song_unet import SongUNet
from tests.priors.snapshots import write_snapshot

SONG = "klip_engine.priors.song_unet.SongUNet"
SMALL = {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [16]}
ARGUMENTS: dict[str, Any] = {"img_resolution": 32, "in_channels": 1, "out_channels": 1} | SMALL
OUTER = {"img_resolution": 32, "img_channels": 1}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_channels": 2**20}, r"size mismatch"),  # 80 TB
        ({"num_blocks": 10**9}, r"more layers than the file has weights"),
        ({"channel_mult": [1, 2, 2]}, r"more layers than the file has weights|Missing key"),
        ({"channel_mult": [1]}, r"Unexpected key"),
        ({"augment_dim": 2**40}, r"more layers than the file has weights|Missing key"),
    ],
)
def test_networks_larger_than_their_weights_are_refused(changes: dict[str, Any], sentence: str) -> None:
    weights = SongUNet(**ARGUMENTS).state_dict()
    with pytest.raises((ValueError, RuntimeError), match=sentence):
        loaded_network(ARGUMENTS | changes, SONG, weights)


def test_weights_of_any_type_become_copies_in_the_networks_own() -> None:
    weights = {name: weight.half() for name, weight in SongUNet(**ARGUMENTS).state_dict().items()}
    network = loaded_network(ARGUMENTS, SONG, weights)
    for name, weight in network.state_dict().items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, weights[name].float(), atol=0, rtol=0)
    doubles = {name: weight.double() for name, weight in weights.items()}
    loaded = loaded_network(ARGUMENTS, SONG, doubles)
    doubles["map_layer0.weight"].fill_(7.0)
    assert not (loaded.state_dict()["map_layer0.weight"] == 7.0).any()
    assert {weight.dtype for weight in loaded.state_dict().values()} == {torch.float32}


class Windowed(nn.Module):
    """A network with a table that is no weight."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, size)
        self.register_buffer("window", torch.hann_window(size), persistent=False)


def test_tables_that_are_no_weights_have_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(architectures.NETWORKS, "tests.Windowed", Windowed)
    weights = build_network({"size": 6}, "tests.Windowed").state_dict()
    network = loaded_network({"size": 6}, "tests.Windowed", weights)
    torch.testing.assert_close(network.get_buffer("window"), torch.hann_window(6))
    torch.testing.assert_close(network.get_parameter("layer.weight"), weights["layer.weight"])


def test_other_threads_build_what_they_like_meanwhile() -> None:
    made: list[nn.Module] = []
    with parameters_at_most(1):
        thread = threading.Thread(target=lambda: made.append(nn.Linear(3, 3)))
        thread.start()
        thread.join()
        with pytest.raises(ValueError, match=r"more layers"):
            nn.Linear(3, 3)
    assert made
    nn.Linear(3, 3)


@pytest.mark.parametrize("target", [SONG, architectures.NETWORK_TARGET])
def test_a_described_network_has_no_numbers_yet(target: str) -> None:
    config = NetworkConfig((8, 8), (1, 1), (False, False), 4, 4, space_to_depth=1)
    arguments = ARGUMENTS if target == SONG else config.monai_arguments()
    network = network_from({"_target_": target} | arguments)
    assert all(tensor.is_meta for tensor in network.state_dict().values())


@pytest.mark.parametrize(
    ("where", "changes", "sentence"),
    [
        ("network_def", {"out_channels": 10**9}, r"hash"),  # compared with its weights only after the hash
        ("network_def", {"num_res_blocks": [10**12, 1]}, r"more layers than the file has weights"),
        ("preconditioning", {"image_shape": [10**6, 10**6]}, r"not two sides of 1 to 4096"),
        ("preconditioning", {"image_shape": [32.0, 32]}, r"not two sides"),
        ("preconditioning", {"image_shape": "32"}, r"not two sides"),
    ],
)
def test_bundles_that_describe_too_much_are_refused(
    tmp_path: Path, where: str, changes: dict[str, Any], sentence: str
) -> None:
    config = NetworkConfig((8, 8), (1, 1), (False, False), 4, 4, space_to_depth=1)
    save_bundle(tmp_path / "b", build_denoiser(config, (32, 32)), None, training={}, model_card="", description="")
    path = tmp_path / "b" / "configs" / "inference.json"
    stored = json.loads(path.read_text())
    stored[where] |= changes
    path.write_text(json.dumps(stored))
    with pytest.raises(PriorError, match=f"damaged: .*{sentence}"):
        load_prior(tmp_path / "b")


def test_images_and_schedules_have_a_largest_size() -> None:
    with pytest.raises(ValueError, match=r"1 to 4096"):
        EDMDenoiser(nn.Identity(), (4097, 8))
    with pytest.raises(ValueError, match=r"1 to 4096"):
        DDPMDenoiser(nn.Identity(), (0, 8), betas=[0.1, 0.2])
    for steps in (10**9, 1, -3):
        with pytest.raises(ValueError, match=rf"has {steps} training times, not 2 to 100000"):
            schedule_betas({"num_train_timesteps": steps})


@pytest.mark.parametrize(
    ("network", "outer", "sentence"),
    [
        ({}, {"img_resolution": None}, r"its img_resolution is missing"),
        ({}, {"img_resolution": 2**15}, r"its img_resolution is 32768, not a whole number up to 4096"),
        ({}, {"img_resolution": 32.5}, r"its img_resolution is 32\.5"),
        ({}, {"img_channels": None}, r"its img_channels is missing"),
        ({}, {"img_channels": "x"}, r"its img_channels is 'x'"),
        ({}, {"img_channels": True}, r"its img_channels is True"),
        ({}, {"img_channels": 3}, r"images and network differ in their channels"),
        ({}, {"sigma_data": None}, r"its sigma_data is missing"),
        ({}, {"sigma_data": "x"}, r"its sigma_data is 'x', not a number"),
        ({}, {"sigma_data": 0}, r"sigma_data 0\.0, .* are not those of a network of EDM"),
        ({}, {"sigma_data": math.nan}, r"its sigma_data is nan"),
        ({}, {"sigma_data": math.inf}, r"sigma_data inf"),
        ({}, {"sigma_data": 10**6000}, r"its sigma_data is of another kind or size"),
        ({}, {"img_resolution": [10**6000]}, r"its img_resolution is of another kind"),
        ({"model_channels": 10**6000}, {}, r"weights do not fit its network"),
        ({}, {"sigma_min": -1}, r"its sigma_min is -1"),
        ({}, {"sigma_min": 3, "sigma_max": 2}, r"sigma_min 3\.0 and sigma_max 2\.0"),
        ({"channel_mult": 3}, {}, r"channel_mult is no list of 1 to 16 numbers"),
        ({"channel_mult": []}, {}, r"channel_mult is no list"),
        ({"channel_mult": [1] * 200_000}, {}, r"channel_mult is no list"),
        ({"channel_mult": ["a", "b"]}, {}, r"weights do not fit its network"),
        ({"num_blocks": 10**7}, {}, r"more layers than the file has weights"),
        ({"model_channels": None}, {}, r"weights do not fit its network"),
        ({"model_channels": 2**70}, {}, r"weights do not fit its network"),
        ({"attn_resolutions": 3}, {}, r"weights do not fit its network"),
    ],
)
def test_odd_arguments_of_a_snapshot_are_named(
    tmp_path: Path, network: dict[str, Any], outer: dict[str, Any], sentence: str
) -> None:
    arguments = {
        name: value for name, value in (OUTER | outer).items() if value is not None or name != "img_resolution"
    }
    write_snapshot(tmp_path / "n.pkl", SongUNet(**ARGUMENTS), ARGUMENTS | network, arguments)
    with pytest.raises(PriorError, match=rf"n\.pkl cannot be imported: .*{sentence}"):
        import_prior(tmp_path / "n.pkl", tmp_path / "b", ImportSettings("edm-pickle"))
    assert not (tmp_path / "b").exists()


def test_a_file_in_the_place_of_the_bundle_is_a_usage_error(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "n.pkl", SongUNet(**ARGUMENTS), ARGUMENTS, OUTER)
    (tmp_path / "file").write_text("kept")
    for bundle in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(UsageError, match=r"file is a file; name a new folder"):
            import_prior(tmp_path / "n.pkl", bundle, ImportSettings("edm-pickle"))
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image_size": "64"}, r"image_size is a whole number"),
        ({"nf": -8}, r"nf is a whole number"),
        ({"ch_mult": "12"}, r"ch_mult is a list"),
        ({"ch_mult": []}, r"ch_mult has 1 to 16"),
        ({"ch_mult": [1] * 17}, r"ch_mult has 1 to 16"),
        ({"attn_resolutions": [1.5]}, r"attn_resolutions is a list"),
        ({"sigma_max": "x"}, r"sigma_min and sigma_max"),
        ({"sigma_max": math.nan}, r"sigma_min and sigma_max"),
        ({"sigma_max": 0.001}, r"sigma_min and sigma_max"),
    ],
)
def test_odd_configurations_of_an_ncsnpp_are_named(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    right = {
        "image_size": 16,
        "nf": 8,
        "ch_mult": [1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "sigma_max": 9.0,
    }
    (tmp_path / "c.json").write_text(json.dumps(right | changes))
    settings = ImportSettings("ncsnpp-flax", configuration=str(tmp_path / "c.json"))
    with pytest.raises(UsageError, match=rf"c\.json is not .*{sentence}"):
        import_prior(tmp_path / "c.json", tmp_path / "b", settings)
