"""The U-Net built here is MONAI's `DiffusionModelUNet`: same weights by name, same bits, and no import of MONAI."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from klip_engine.priors.architectures import NETWORK_TARGET, build_network, loaded_network
from klip_engine.priors.monai_unet import DiffusionUNet, is_covered

SMALL = {
    "spatial_dims": 2, "in_channels": 3, "out_channels": 2, "channels": [8, 16], "num_res_blocks": [1, 2],
    "attention_levels": [False, False], "norm_num_groups": 4, "num_head_channels": 8,
}  # fmt: skip
KINDS = {
    "plain": {},
    "with attention": {"attention_levels": [True, True], "num_head_channels": 4},
    "one level": {"channels": [8], "num_res_blocks": [2], "attention_levels": [True]},
    "levels that get narrower": {
        "channels": [16, 8, 12], "num_res_blocks": [2, 1, 3], "attention_levels": [False, True, False],
        "num_head_channels": 4,
    },
    "odd sinusoids": {"channels": [9, 9], "norm_num_groups": 3, "num_head_channels": 3},
}  # fmt: skip


def both(arguments: dict) -> tuple[torch.nn.Module, torch.nn.Module]:
    """MONAI's network and ours of these arguments, each drawn after the same seed."""
    from monai.networks.nets import DiffusionModelUNet

    torch.manual_seed(3)
    theirs = DiffusionModelUNet(**arguments)
    torch.manual_seed(3)
    ours = build_network(arguments)
    assert isinstance(ours, DiffusionUNet)
    return theirs, ours


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_weights_of_monai_by_name(kind):
    theirs, ours = both(SMALL | KINDS[kind])
    expected, drawn = theirs.state_dict(), ours.state_dict()
    assert drawn.keys() == expected.keys()
    assert all(torch.equal(drawn[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_and_learns_as_monai_does(kind):
    arguments = SMALL | KINDS[kind]
    theirs, ours = both(arguments)
    for parameter in theirs.parameters():  # the layers that start at zero would hide mistakes
        torch.nn.init.normal_(parameter, std=0.2)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([0.25, 700.0])
    answers = []
    for network in (theirs, ours):
        answers.append(network(x, timesteps=timesteps))
        answers[-1].square().mean().backward()
    assert torch.equal(answers[1], answers[0])
    learned = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        assert torch.equal(learned[name].grad, parameter.grad), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_computes_in_the_type_of_its_weights(dtype):
    theirs, ours = both(SMALL | KINDS["with attention"])
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    answers = [network.to(dtype)(x, timesteps=torch.tensor([1.5])) for network in (theirs, ours)]
    assert answers[1].dtype == dtype
    assert torch.equal(answers[1], answers[0])


@pytest.mark.parametrize(
    "more",
    [
        {"resblock_updown": True},
        {"spatial_dims": 3},
        {"with_conditioning": True, "cross_attention_dim": 4},
        {"num_res_blocks": 1},
        {"num_head_channels": [8, 8]},
    ],
)
def test_what_asks_for_more_is_built_by_monai(more):
    from monai.networks.nets import DiffusionModelUNet

    network = build_network(SMALL | more)
    assert isinstance(network, DiffusionModelUNet)
    again = loaded_network(SMALL | more, NETWORK_TARGET, network.state_dict())
    assert again.state_dict().keys() == network.state_dict().keys()


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": [8, 15]},
        {"channels": [8]},
        {"channels": []},
        {"channels": "88"},
        {"channels": [8, -16]},
        {"channels": [8.0, 16.0]},
        {"num_res_blocks": [1, None]},
        {"num_res_blocks": [True, True]},
        {"attention_levels": [False, 1]},
        {"norm_num_groups": 0},
        {"num_head_channels": 5},
        {"in_channels": "3"},
        {"surprise": 1},
    ],
)
def test_arguments_that_are_wrong_are_left_to_monai(wrong):
    assert is_covered(SMALL)
    assert not is_covered(SMALL | wrong)


def test_detecting_with_the_default_prior_does_not_import_monai():
    code = (
        "import sys\nsys.modules['monai'] = None\n"
        "import klip_engine.pipeline\nfrom klip_engine.priors import load_prior\n"
        "prior = load_prior('default')\nprint(type(prior.denoiser.network).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "DiffusionUNet", done.stderr
