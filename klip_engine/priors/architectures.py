"""The networks a bundle may name: built from plain data, and able to say from which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from klip_engine.errors import PriorError
from klip_engine.priors.ncsnpp import NCSNpp
from klip_engine.priors.song_unet import SongUNet

NETWORK_TARGET = "monai.networks.nets.DiffusionModelUNet"


def build_network(arguments: dict[str, Any], target: str = NETWORK_TARGET) -> nn.Module:
    """A network of `NETWORKS` from its keyword arguments (plain data); called as network(x, timesteps=t) with
    x [batch, channels, h, w] and t [batch]. Raises ValueError for one that is not registered."""
    if target not in NETWORKS:
        raise ValueError(f"its network is not one of {', '.join(NETWORKS)}")
    network = NETWORKS[target](**arguments)
    network.definition = {"_target_": target} | arguments  # type: ignore[assignment]
    return network


def network_from(definition: dict[str, Any]) -> nn.Module:
    """The network that `network_definition` described; raises ValueError for one that is not registered."""
    return build_network({k: v for k, v in definition.items() if k != "_target_"}, str(definition["_target_"]))


def network_definition(network: nn.Module) -> dict[str, Any]:
    """A network as a bundle's configs/inference.json holds it, in MONAI's form: "_target_" and keyword arguments.

    Raises PriorError for a network that was not made by `build_network`.
    """
    definition = getattr(network, "definition", None)
    if not isinstance(definition, dict):
        raise PriorError(f"a {type(network).__name__} cannot be kept in a bundle: build it with build_network")
    return definition


def folded(network: nn.Module, x: torch.Tensor, time: torch.Tensor, factor: int) -> torch.Tensor:
    """The network's answer to x [batch, channels, h, w] on a grid `factor` times coarser along both axes, with
    factor^2 times the channels in and out; time [batch]."""
    out: torch.Tensor = network(functional.pixel_unshuffle(x, factor), timesteps=time)
    return functional.pixel_shuffle(out, factor)


def _diffusion_model_unet(**arguments: Any) -> nn.Module:
    from monai.networks.nets import DiffusionModelUNet

    return DiffusionModelUNet(**arguments)


def _unet_2d(**arguments: Any) -> nn.Module:
    from klip_engine.priors.diffusers_pipeline import UNet2D

    return UNet2D(**arguments)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    NETWORK_TARGET: _diffusion_model_unet,
    "klip_engine.priors.song_unet.SongUNet": SongUNet,
    "klip_engine.priors.ncsnpp.NCSNpp": NCSNpp,
    "diffusers.UNet2DModel": _unet_2d,
}
