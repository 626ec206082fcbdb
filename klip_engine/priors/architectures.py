"""The networks a bundle may name: built from plain data, and able to say from which."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.module import register_module_parameter_registration_hook

from klip_engine.errors import PriorError
from klip_engine.priors import monai_unet
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
    """The network that `network_definition` described, without numbers until `load_weights`: a few words of a file
    can describe a network that no memory holds. Raises ValueError for one that is not registered."""
    arguments = {k: v for k, v in definition.items() if k != "_target_"}
    with torch.device("meta"):
        return build_network(arguments, str(definition["_target_"]))


def loaded_network(arguments: dict[str, Any], target: str, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """The network of these arguments with these weights, all of them and no other.

    Raises ValueError, TypeError, RuntimeError, LookupError or ArithmeticError where they do not fit.
    """
    with parameters_at_most(len(weights)):
        network = network_from({"_target_": target} | arguments)
    load_weights(network, weights)
    return network


def load_weights(network: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Give a network of `network_from` its numbers: copies of `weights`, by the names and in the types of its own.

    Raises RuntimeError when names or shapes differ.
    """
    own = network.state_dict()
    copies = {
        name: weight.detach().to(own[name].dtype, copy=True, memory_format=torch.contiguous_format)
        if name in own
        else weight
        for name, weight in weights.items()
    }
    network.load_state_dict(copies, assign=True)
    if any(buffer.is_meta for buffer in network.buffers()):
        # Buffers that are no weights: the shapes having been compared, the network can be made with its numbers.
        definition = network_definition(network)
        arguments = {k: v for k, v in definition.items() if k != "_target_"}
        made = build_network(arguments, definition["_target_"])
        for path, layer in made.named_modules():
            for name, buffer in layer.named_buffers(recurse=False):
                if network.get_submodule(path).get_buffer(name).is_meta:
                    network.get_submodule(path)._buffers[name] = buffer


@contextmanager
def parameters_at_most(count: int) -> Iterator[None]:
    """Raise ValueError as soon as what this thread builds has more parameters than a file has weights: a number in
    a file can ask for a million layers."""
    thread, left = threading.get_ident(), count

    def counted(*_: Any) -> None:
        nonlocal left
        if threading.get_ident() == thread:
            left -= 1
            if left < 0:
                raise ValueError(f"its network has more layers than the file has weights ({count})")

    hook = register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()


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
    if monai_unet.is_covered(arguments):
        return monai_unet.DiffusionUNet(**arguments)
    with torch.device("cpu"):  # tensors that the package keeps must have numbers
        from monai.networks.nets import DiffusionModelUNet

    return DiffusionModelUNet(**arguments)


def _unet_2d(**arguments: Any) -> nn.Module:
    with torch.device("cpu"):
        from klip_engine.priors.diffusers_pipeline import UNet2D

    return UNet2D(**arguments)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    NETWORK_TARGET: _diffusion_model_unet,
    "klip_engine.priors.song_unet.SongUNet": SongUNet,
    "klip_engine.priors.ncsnpp.NCSNpp": NCSNpp,
    "diffusers.UNet2DModel": _unet_2d,
}
