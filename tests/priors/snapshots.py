"""Network snapshots as EDM's training writes them, made here with a module that pickles by the same protocol."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

SMALL_NETWORK: dict[str, Any] = {
    "img_resolution": 32,
    "in_channels": 3,
    "out_channels": 1,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [16],
}
"""Arguments of a `SongUNet` with one of everything."""
SOURCE = "raise SystemExit('the source code in the snapshot was run')"


@contextmanager
def persistence() -> Iterator[Any]:
    """`torch_utils.persistence` as a name that can be pickled; its function says so when it is ever called."""

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise SystemExit("the snapshot's constructor was called")

    module = types.ModuleType("torch_utils.persistence")
    _reconstruct_persistent_obj.__module__ = module.__name__
    _reconstruct_persistent_obj.__qualname__ = _reconstruct_persistent_obj.__name__
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in ("torch_utils", module.__name__)}
    sys.modules |= {"torch_utils": types.ModuleType("torch_utils"), module.__name__: module}
    try:
        yield _reconstruct_persistent_obj
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old


class Persistent:
    """Pickles a module as a class name, source code and state, as `torch_utils.persistence` does (version 6)."""

    def __init__(self, module: nn.Module, class_name: str, reconstruct: Any, **arguments: Any) -> None:
        self.parts = module, class_name, reconstruct, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        module, class_name, reconstruct, arguments = self.parts
        state = dict(module.__dict__)
        state["_modules"] = {
            name: _wrapped(child, reconstruct) for name, child in module.__dict__["_modules"].items()
        }
        state |= {"_init_args": (), "_init_kwargs": arguments}
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": class_name, "state": state}
        return reconstruct, (meta,)


def _wrapped(module: Any, reconstruct: Any) -> Any:
    """Containers of PyTorch pickle themselves, every other layer is persistent."""
    if module is None:
        return None
    if isinstance(module, nn.ModuleDict):
        copy = nn.ModuleDict()
        copy.__dict__["_modules"] = {name: _wrapped(child, reconstruct) for name, child in module.items()}
        return copy
    return Persistent(module, type(module).__name__, reconstruct)


class Preconditioned(nn.Module):
    """What a snapshot's network looks like from outside: the U-Net is its part `model`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.__dict__["_modules"] = {"model": model}


def write_snapshot(
    path: Path,
    network: nn.Module,
    network_arguments: dict[str, Any],
    arguments: dict[str, Any],
    preconditioning: str = "EDMPrecond",
    protocol: int = 4,
) -> None:
    """A snapshot with this network under the preconditioning, as `pickle.dump` of EDM's training loop."""
    with persistence() as reconstruct:
        model = Persistent(network, "SongUNet", reconstruct, **network_arguments)
        outer = Preconditioned(None)
        reduced = Persistent(outer, preconditioning, reconstruct, **arguments)
        outer.__dict__["_modules"] = {"model": network}
        function, (meta,) = reduced.__reduce__()
        meta["state"]["_modules"] = {"model": model}
        snapshot = {"ema": _Reduced(function, meta), "loss_fn": None, "augment_pipe": None}
        with path.open("wb") as file:
            pickle.dump(snapshot | {"dataset_kwargs": {"path": "x"}}, file, protocol=protocol)


class _Reduced:
    def __init__(self, function: Any, meta: dict[str, Any]) -> None:
        self.parts = function, (meta,)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights nobody would mistake for fresh ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))
    return module.eval().requires_grad_(False)
