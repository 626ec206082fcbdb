"""The network of EDM's snapshots: the published layout, the published network's answers, the resampling alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn

from klip_engine.priors.song_unet import PositionalEmbedding, Resample, SongUNet
from tests.priors.snapshots import SMALL_NETWORK

NCSNPP = {"embedding_type": "fourier", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1]}

BLOCK = ["norm0", "conv0", "affine", "norm1", "conv1"]
PUBLISHED_PARTS = {
    "map_layer0": [""],
    "map_layer1": [""],
    "enc.32x32_conv": [""],
    "enc.32x32_block0": BLOCK,
    "enc.16x16_down": [*BLOCK, "skip"],
    "enc.16x16_block0": [*BLOCK, "skip", "norm2", "qkv", "proj"],
    "dec.16x16_in0": [*BLOCK, "norm2", "qkv", "proj"],
    "dec.16x16_in1": BLOCK,
    "dec.16x16_block0": [*BLOCK, "skip"],
    "dec.16x16_block1": [*BLOCK, "skip", "norm2", "qkv", "proj"],
    "dec.32x32_up": [*BLOCK, "skip"],
    "dec.32x32_block0": [*BLOCK, "skip"],
    "dec.32x32_block1": [*BLOCK, "skip"],
    "dec.32x32_aux_norm": [""],
    "dec.32x32_aux_conv": [""],
}


def test_parameters_are_named_and_shaped_as_published() -> None:
    state = SongUNet(**SMALL_NETWORK).state_dict()
    expected = {
        ".".join(filter(None, (part, layer, kind)))
        for part, layers in PUBLISHED_PARTS.items()
        for layer in layers
        for kind in ("weight", "bias")
    } | {
        f"{part}.{layer}.resample_filter"
        for part in ("enc.16x16_down", "dec.32x32_up")
        for layer in ("conv0", "skip")
    }
    assert set(state) == expected
    shapes = {
        "map_layer0.weight": (32, 8),
        "enc.32x32_conv.weight": (8, 3, 3, 3),
        "enc.16x16_down.conv0.resample_filter": (1, 1, 2, 2),
        "enc.16x16_block0.skip.weight": (16, 8, 1, 1),
        "enc.16x16_block0.affine.weight": (16, 32),
        "dec.16x16_in0.qkv.weight": (48, 16, 1, 1),
        "dec.16x16_block1.conv0.weight": (16, 24, 3, 3),
        "dec.32x32_aux_conv.bias": (1,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_ncsnpp_and_augmentation_add_their_parameters() -> None:
    network = SongUNet(**SMALL_NETWORK, **NCSNPP, encoder_type="residual", augment_dim=9)
    state = network.state_dict()
    assert tuple(state["map_noise.freqs"].shape) == (8,)
    assert tuple(state["map_augment.weight"].shape) == (16, 9)
    assert tuple(state["enc.16x16_aux_residual.weight"].shape) == (8, 3, 3, 3)
    assert tuple(state["enc.16x16_aux_residual.resample_filter"].shape) == (1, 1, 4, 4)


@pytest.mark.parametrize(
    ("options", "published"),
    [
        ({}, [0.318431, 0.235245, 0.241957, 0.304156]),
        (NCSNPP | {"encoder_type": "residual"}, [-0.548294, -0.391596, -0.401621, -0.567697]),
        (
            NCSNPP | {"encoder_type": "skip", "decoder_type": "skip"},
            [-0.109313, -0.207107, -0.18935, -0.02789],
        ),
    ],
)
def test_answers_are_those_of_the_published_network(options: dict[str, Any], published: list[float]) -> None:
    """Four pixels of what the published network (NVlabs/edm) gives for these weights and c_noise -0.6."""
    network = SongUNet(**SMALL_NETWORK, **options).eval()
    for number, (name, value) in enumerate(network.state_dict().items()):
        if "resample_filter" not in name:
            index = torch.arange(value.numel(), dtype=torch.float64)
            value.copy_((0.3 * torch.sin(1.7 * index + number)).view(value.shape))
    x = torch.sin(0.37 * torch.arange(3 * 16 * 24, dtype=torch.float64)).float().view(1, 3, 16, 24)
    with torch.no_grad():
        out = network(x, torch.tensor([-0.6]))
    assert out.shape == (1, 1, 16, 24)
    np.testing.assert_allclose(out[0, 0, [0, 3, 7, 15], [0, 20, 11, 23]], published, atol=5e-6)


@pytest.mark.parametrize("taps", [[1, 1], [1, 3, 3, 1]])
def test_resampling_is_an_fir_filter(taps: list[int]) -> None:
    """Along a line, against scipy's polyphase filter: twice the resolution with gain 2, half of it with gain 1."""
    line = np.random.default_rng(0).normal(size=16)
    x = torch.from_numpy(line).float().view(1, 1, 1, 16).expand(1, 1, 16, 16)
    fir = np.array(taps) / sum(taps)
    margin = (len(taps) - 1) // 2
    up = Resample(1, 1, 0, up=True, taps=taps)(x)[0, 0, 8]
    np.testing.assert_allclose(up, upfirdn(2 * fir, line, up=2)[margin : margin + 32], atol=1e-6)
    down = Resample(1, 1, 0, down=True, taps=taps)(x)[0, 0, 4]
    padded = np.pad(line, margin)
    whole = np.convolve(padded, fir, mode="valid")[::2]
    np.testing.assert_allclose(down, whole, atol=1e-6)


def test_embedding_is_the_transformer_s() -> None:
    noise = torch.tensor([0.0, 3.0])
    angles = noise.numpy()[:, None] * np.array([1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3), 1e-4])[None]
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(PositionalEmbedding(8)(noise), expected, atol=1e-6)


def test_gradients_reach_the_input_of_a_padis_patch() -> None:
    """Named after 304 pixels, run on 56, as PaDIS does."""
    network = SongUNet(304, 3, 1, model_channels=8, channel_mult=[2, 2, 2], num_blocks=1).eval()
    x = torch.zeros(1, 3, 56, 56, requires_grad=True)
    network(x, torch.tensor([0.1])).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("wrong", [{"embedding_type": "none"}, {"encoder_type": "x"}, {"decoder_type": "residual"}])
def test_unknown_parts_are_named(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong.values()))):
        SongUNet(**SMALL_NETWORK, **wrong)
