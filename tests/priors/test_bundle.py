"""Bundles: what is saved comes back, MONAI reads it too, and nothing else is accepted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from klip_engine.errors import PriorError
from klip_engine.priors import load_prior, save_bundle
from klip_engine.priors.edm import EDMDenoiser
from klip_engine.priors.network import NetworkConfig, build_denoiser
from klip_engine.working_grid import WorkingGrid
from tests.conftest import GaussianPrior

GRID = WorkingGrid((32, 48), 8.0)
TINY = NetworkConfig((16, 16), (1, 1), (False, False), 8, 8)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    denoiser = build_denoiser(TINY, GRID.shape)
    for parameter in denoiser.parameters():  # MONAI's last layer starts at zero, which would hide mistakes
        torch.nn.init.normal_(parameter, std=0.05)
    save_bundle(
        tmp_path / "tiny",
        denoiser,
        GRID,
        training={"patients": 0},
        model_card="# tiny\n",
        description="a tiny prior",
    )
    torch.save(denoiser.state_dict(), tmp_path / "original.pt")
    return tmp_path / "tiny"


def _edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_bundle_comes_back_with_the_same_function(bundle):
    prior = load_prior(bundle)
    original = build_denoiser(TINY, GRID.shape)
    original.load_state_dict(torch.load(bundle.parent / "original.pt", weights_only=True))
    x = torch.randn(2, 1, *GRID.shape, generator=torch.Generator().manual_seed(0))
    expected, loaded = original.denoise(x, 0.3), prior.denoiser.denoise(x, 0.3)
    torch.testing.assert_close(loaded.mean, expected.mean, atol=2e-3, rtol=0)  # weights are kept as float16
    assert prior.grid == GRID
    assert prior.identity()["hash"].startswith("sha256:")


def test_monai_reads_the_same_network_from_the_bundle(bundle):
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    network = parser.get_parsed_content("network_def")
    ours = load_prior(bundle).denoiser.network
    assert {k: v.shape for k, v in network.state_dict().items()} == {
        k: v.shape for k, v in ours.state_dict().items()
    }
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    for field in ("version", "monai_version", "pytorch_version", "task", "network_data_format", "changelog"):
        assert metadata[field]


def test_another_schema_version_is_refused_with_both_versions(bundle):
    _edit(bundle / "configs" / "metadata.json", lambda m: m["klip"].update(schema="klip-prior/2"))
    with pytest.raises(PriorError, match="klip-prior/2.*klip-prior/1"):
        load_prior(bundle)


def test_changed_weights_are_noticed(bundle):
    weights = bundle / "models" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(PriorError, match="damaged.*hash"):
        load_prior(bundle)


@pytest.mark.parametrize("target", ["os.system", "monai.networks.nets.UNet", "klip_engine.priors.edm.EDMDenoiser"])
def test_no_other_class_is_built_from_a_bundle(bundle, target):
    _edit(bundle / "configs" / "inference.json", lambda c: c["network_def"].update(_target_=target))
    with pytest.raises(PriorError, match="network is not"):
        load_prior(bundle)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda b: (b / "models" / "model.safetensors").unlink(), "damaged"),
        (lambda b: (b / "configs" / "inference.json").write_text("{"), "damaged"),
        (lambda b: (b / "configs" / "metadata.json").write_text("{}"), "not a prior of this engine"),
        (lambda b: (b / "configs" / "metadata.json").unlink(), "not a prior"),
    ],
)
def test_damaged_bundles_give_a_sentence(bundle, damage, sentence):
    damage(bundle)
    with pytest.raises(PriorError, match=sentence):
        load_prior(bundle)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(PriorError, match="no prior 'atlantis'.*built in"):
        load_prior("atlantis")


def test_a_changed_grid_or_network_is_noticed(bundle):
    _edit(bundle / "configs" / "metadata.json", lambda m: m["klip"]["grid"].update(pixel_mm=2.0))
    with pytest.raises(PriorError, match="hash"):
        load_prior(bundle)


def test_a_folder_in_the_way_does_not_shadow_a_built_in_prior(bundle, tmp_path, monkeypatch):
    bundle.rename(tmp_path / "default")
    monkeypatch.chdir(tmp_path)
    assert load_prior("default").training["patients"] > 0
    assert load_prior("./default").training["patients"] == 0


def test_an_unknown_family_is_answered_with_the_known_ones(bundle):
    _edit(bundle / "configs" / "metadata.json", lambda m: m["klip"].update(family="oracle"))
    with pytest.raises(PriorError, match="family 'oracle'.*known: edm"):
        load_prior(bundle)


def test_a_bundle_without_a_family_is_the_default_kind_with_the_same_hash(bundle):
    before = load_prior(bundle).sha256
    _edit(bundle / "configs" / "metadata.json", lambda m: m["klip"].pop("family"))
    prior = load_prior(bundle)
    assert (prior.family, prior.sha256) == ("edm", before)


def test_the_shipped_prior_keeps_its_hash():
    assert load_prior().sha256 == "f055dff1a027717bc32047edb97ff5f0e1bfa38418607d9b891055d44b9ef417"


def test_a_prior_of_pictures_has_no_working_grid_and_says_what_its_images_are(tmp_path):
    denoiser = build_denoiser(TINY, (32, 48))
    save_bundle(tmp_path / "photo", denoiser, None, training={}, model_card="", description="pictures")
    prior = load_prior(tmp_path / "photo")
    assert prior.grid is None
    klip = json.loads((tmp_path / "photo" / "configs" / "metadata.json").read_text())["klip"]
    assert klip["image"] == {"shape": [32, 48], "channels": 1, "value_range": [-1, 1]}
    with pytest.raises(PriorError, match="'photo' is of pictures, not of CT"):
        _ = prior.ct_grid
    _edit(tmp_path / "photo" / "configs" / "metadata.json", lambda m: m["klip"]["image"].update(value_range=[0, 1]))
    with pytest.raises(PriorError, match="damaged: its images are"):
        load_prior(tmp_path / "photo")


def test_a_denoiser_of_no_family_or_network_is_not_saved(tmp_path):
    with pytest.raises(PriorError, match="GaussianPrior.*no registered family"):
        save_bundle(
            tmp_path, GaussianPrior(torch.zeros(8, 8), 1.0), None, training={}, model_card="", description=""
        )
    with pytest.raises(PriorError, match="Identity.*build_network"):
        save_bundle(
            tmp_path, EDMDenoiser(torch.nn.Identity(), (8, 8)), None, training={}, model_card="", description=""
        )
    assert not list(tmp_path.iterdir())
