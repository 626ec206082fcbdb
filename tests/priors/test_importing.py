"""Published weights become bundles: the engine's prior is the published one in the engine's unit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from klip_engine.cli import app
from klip_engine.errors import PriorError, UsageError
from klip_engine.priors import load_prior
from klip_engine.priors.importing import ImportSettings, import_prior
from klip_engine.priors.ncsnpp import NCSNpp
from klip_engine.priors.orbax_ncsnpp import torch_weights
from klip_engine.priors.song_unet import SongUNet
from tests.priors.snapshots import randomise, write_snapshot
from tests.priors.test_ncsnpp_flax import flax_parameters, msgpack_checkpoint, nested

SMALL: dict[str, Any] = {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [16]}
CT: dict[str, Any] = {"hu": (-1000.0, 1200.0), "pixel_mm": 1.5}
FACTOR, OFFSET = 1 / 2.2, -1.0
"""u = FACTOR (x - OFFSET) has the values 0 at -1000 HU and 1 at 1200 HU."""


def edm_snapshot(file: Path, channels: int = 1, **outer: Any) -> SongUNet:
    arguments = {"img_resolution": 32, "in_channels": channels, "out_channels": channels} | SMALL
    network = SongUNet(**arguments)
    randomise(network)
    precond = {"img_resolution": 32, "img_channels": channels, "use_fp16": False} | outer
    write_snapshot(file, network, arguments | {"label_dim": 0}, precond)
    return network


def patch_snapshot(file: Path) -> SongUNet:
    arguments = {"img_resolution": 64, "in_channels": 3, "out_channels": 1} | SMALL
    network = SongUNet(**arguments)
    randomise(network)
    precond = {"img_resolution": 64, "img_channels": 3, "out_channels": 1, "label_dim": 0}
    write_snapshot(file, network, arguments, precond, "Patch_EDMPrecond")
    return network


def edm_mean(network: Any, u: torch.Tensor, sigma: float, position: torch.Tensor | None = None) -> torch.Tensor:
    """EDM Table 1, with sigma_data 0.5 and c_noise = ln(sigma) / 4."""
    c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / math.sqrt(sigma**2 + 0.25)
    inputs = u / math.sqrt(sigma**2 + 0.25)
    if position is not None:
        inputs = torch.cat([inputs, position], dim=1)
    return c_skip * u + c_out * network(inputs, torch.full((len(u),), math.log(sigma) / 4))


@torch.no_grad()
def test_an_edm_snapshot_of_ct(tmp_path: Path) -> None:
    network = edm_snapshot(tmp_path / "n.pkl")
    import_prior(tmp_path / "n.pkl", tmp_path / "b", ImportSettings("edm-pickle", values=(0.0, 1.0), **CT))
    prior = load_prior(tmp_path / "b")
    assert prior.grid is not None
    assert (prior.grid.shape, prior.grid.pixel_mm) == ((32, 32), 1.5)
    x = torch.linspace(-1, 1, 2 * 32 * 32).view(2, 1, 32, 32)
    sigma = 0.4
    expected = OFFSET + edm_mean(network, FACTOR * (x - OFFSET), FACTOR * sigma) / FACTOR
    torch.testing.assert_close(prior.denoiser.denoise(x, sigma).mean, expected, atol=1e-5, rtol=1e-5)
    assert prior.denoiser.sigma_max == pytest.approx(80 / FACTOR)


@torch.no_grad()
def test_an_edm_snapshot_of_pictures_keeps_its_unit(tmp_path: Path) -> None:
    network = edm_snapshot(tmp_path / "n.pkl", channels=3)
    import_prior(tmp_path / "n.pkl", tmp_path / "b", ImportSettings("edm-pickle"))
    prior = load_prior(tmp_path / "b")
    assert (prior.grid, prior.denoiser.channels, prior.family) == (None, 3, "edm-song")
    x = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    torch.testing.assert_close(prior.denoiser.denoise(x, 2.0).mean, edm_mean(network, x, 2.0), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_padis_snapshot(tmp_path: Path) -> None:
    """One patch inside of the image is the network's answer with the patch's coordinates in the padded image."""
    network = patch_snapshot(tmp_path / "n.pkl")
    settings = ImportSettings("edm-pickle", shape=(40, 48), patch=16, **CT)
    import_prior(tmp_path / "n.pkl", tmp_path / "b", settings)
    prior = load_prior(tmp_path / "b").denoiser
    x = torch.linspace(-1, 1, 40 * 48).view(1, 1, 40, 48)
    sigma = 0.3
    pad = (16 * 3 - 40, 16 * 4 - 48)  # grids of 3 x 4 patches begin at most so far before the image
    result = prior.at_offset((2, 5)).denoise(x, sigma).mean  # type: ignore[attr-defined]
    top, left = 2 + 16 - pad[0], 5 + 16 - pad[1]
    rows = torch.linspace(-1, 1, 40 + 2 * pad[0])[2 + 16 : 2 + 32]
    columns = torch.linspace(-1, 1, 48 + 2 * pad[1])[5 + 16 : 5 + 32]
    position = torch.stack([columns.expand(16, 16), rows[:, None].expand(16, 16)])[None]
    inside = x[..., top : top + 16, left : left + 16]
    expected = OFFSET + edm_mean(network, FACTOR * (inside - OFFSET), FACTOR * sigma, position) / FACTOR
    torch.testing.assert_close(result[..., top : top + 16, left : left + 16], expected, atol=1e-5, rtol=1e-5)
    assert prior.patch == 16  # type: ignore[attr-defined]


CONFIG = {
    "image_size": 16,
    "nf": 8,
    "ch_mult": [1, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [8],
    "sigma_max": 50.0,
}


@torch.no_grad()
def test_an_ncsnpp_checkpoint(tmp_path: Path) -> None:
    network = NCSNpp(16, nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(8,)).eval()
    parameters = flax_parameters(network)
    network.load_state_dict(torch_weights(parameters))
    file = msgpack_checkpoint(tmp_path / "checkpoint_3", {"params_ema": nested(parameters), "step": np.int32(3)})
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    settings = ImportSettings("ncsnpp-flax", configuration=str(tmp_path / "config.json"), **CT)
    import_prior(file, tmp_path / "b", settings)
    prior = load_prior(tmp_path / "b").denoiser
    x, sigma = torch.linspace(-1, 1, 256).view(1, 1, 16, 16), 0.6
    u, s = FACTOR * (x - OFFSET), FACTOR * sigma
    expected = OFFSET + (u + s * network(u, torch.tensor([math.log(s)]))) / FACTOR  # u + s^2 score, score = F / s
    torch.testing.assert_close(prior.denoise(x, sigma).mean, expected, atol=1e-5, rtol=1e-5)
    assert prior.sigma_max == pytest.approx(50 / FACTOR)


def test_the_command_writes_a_card(tmp_path: Path) -> None:
    edm_snapshot(tmp_path / "network-snapshot.pkl")
    command = ["import", str(tmp_path / "network-snapshot.pkl"), "-o", str(tmp_path / "b"), "--kind", "edm-pickle"]
    command += ["--hu", "-1000", "1200", "--values", "0", "1", "--pixel-mm", "1.5", "--progress", "json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    card = (tmp_path / "b" / "docs" / "README.md").read_text()
    assert "Licence: unknown" in card
    assert "0 to 1 are -1000 to 1200 HU" in card
    result = CliRunner().invoke(app, ["info", str(tmp_path / "b")])
    facts = json.loads(result.output)
    assert facts["training"]["licence"] == "unknown"
    assert facts["training"]["file"] == "network-snapshot.pkl"
    again = CliRunner().invoke(app, [*command, "--licence", "CC BY 4.0", "--source", "https://example.org"])
    assert again.exit_code == 2  # the folder is not empty any more
    command[3] = str(tmp_path / "c")
    CliRunner().invoke(app, [*command, "--licence", "CC BY 4.0", "--source", "https://example.org"])
    card = (tmp_path / "c" / "docs" / "README.md").read_text()
    assert "Licence: CC BY 4.0" in card
    assert "https://example.org" in card


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"kind": "onnx"}, UsageError, r"no kind of weights 'onnx' \(known: edm-pickle"),
        ({"hu": (-1000, 1000)}, UsageError, r"both --hu and --pixel-mm"),
        ({"pixel_mm": 1.0}, UsageError, r"both --hu and --pixel-mm"),
        ({"hu": (1000, -1000), "pixel_mm": 1.0}, UsageError, r"lower and a higher"),
        ({"shape": (33, 32)}, UsageError, r"33 x 32 pixels cannot be halved 1 times.*multiples of 2"),
        ({"kind": "ncsnpp-flax"}, UsageError, r"needs --config: ct2d_320"),
        ({"kind": "ncsnpp-flax", "configuration": "x"}, UsageError, r"no configuration 'x'"),
        ({"kind": "diffusers"}, PriorError, r"no model_index\.json"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_named(
    tmp_path: Path, settings: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    edm_snapshot(tmp_path / "n.pkl")
    with pytest.raises(error, match=sentence):
        import_prior(tmp_path / "n.pkl", tmp_path / "b", ImportSettings(**({"kind": "edm-pickle"} | settings)))
    assert not (tmp_path / "b").exists()


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    file = tmp_path / "n.pkl"
    with pytest.raises(PriorError, match=r"no such file or folder"):
        import_prior(file, tmp_path / "b", ImportSettings("edm-pickle"))
    patch_snapshot(file)
    with pytest.raises(UsageError, match=r"prior of patches: name the rows and columns"):
        import_prior(file, tmp_path / "b", ImportSettings("edm-pickle"))
    network = SongUNet(32, 1, 1, **SMALL)
    other = {"img_resolution": 32, "in_channels": 1, "out_channels": 1} | SMALL
    write_snapshot(file, network, other | {"model_channels": 16}, {"img_resolution": 32, "img_channels": 1})
    with pytest.raises(PriorError, match=r"weights do not fit its network"):
        import_prior(file, tmp_path / "b", ImportSettings("edm-pickle"))
    write_snapshot(file, network, other | {"label_dim": 10}, {"img_resolution": 32, "img_channels": 1})
    with pytest.raises(PriorError, match=r"uses label_dim"):
        import_prior(file, tmp_path / "b", ImportSettings("edm-pickle"))
    edm_snapshot(file, channels=3)
    with pytest.raises(UsageError, match=r"CT have one channel, these have 3"):
        import_prior(file, tmp_path / "b", ImportSettings("edm-pickle", **CT))
    (tmp_path / "c.json").write_text('{"nf": 8}')
    with pytest.raises(UsageError, match=r"not a JSON object with some of image_size"):
        import_prior(file, tmp_path / "b", ImportSettings("ncsnpp-flax", configuration=str(tmp_path / "c.json")))
    assert not (tmp_path / "b").exists()
