"""Network snapshots of EDM and PaDIS (`network-snapshot-*.pkl`) as weights and plain arguments.

A snapshot is a pickled dictionary whose entry "ema" is a preconditioned network: an object that states its class
by name, its source code as text, the arguments it was made with and, layer by layer, its parameters. The source
code is never looked at; the class name only says which of our own networks has the same layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from klip_engine.errors import PriorError
from klip_engine.priors.pickles import Record, read_pickle

_MOST_LAYERS = 20_000
_PRECONDITIONING = ("EDMPrecond", "Patch_EDMPrecond")


@dataclass(frozen=True)
class NetworkSnapshot:
    """A published network: what it is called, what it was made with, its weights under their published names."""

    preconditioning: str
    """EDMPrecond (whole images) or Patch_EDMPrecond (patches with two position channels)."""
    network: str
    """The class under the preconditioning, SongUNet."""
    preconditioning_arguments: dict[str, Any]
    """img_resolution, img_channels (with position channels where there are any), sigma_data, ..."""
    network_arguments: dict[str, Any]
    """Keyword arguments of the network under its preconditioning."""
    weights: dict[str, torch.Tensor]
    """State dictionary of the network under its preconditioning."""


def read_snapshot(path: Path, entry: str = "ema") -> NetworkSnapshot:
    """Read a snapshot without executing anything of it.

    Raises PriorError for a file that cannot be read, is no snapshot, holds anything but data (`priors.pickles`) or
    has a network of a class that this engine does not know.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PriorError(f"{path} cannot be read: {error.strerror}") from error
    try:
        module = _entry(read_pickle(content), entry)
        return _snapshot(module)
    except PriorError as error:
        raise PriorError(f"{path} cannot be imported: {error}") from error


def _entry(snapshot: Any, entry: str) -> Record:
    if not isinstance(snapshot, dict) or not isinstance(snapshot.get(entry), Record):
        raise PriorError(f"it has no network '{entry}'; a snapshot is a dictionary with the network under 'ema'")
    module: Record = snapshot[entry]
    return module


def _snapshot(module: Record) -> NetworkSnapshot:
    if module.class_name not in _PRECONDITIONING:
        known = " and ".join(_PRECONDITIONING)
        raise PriorError(f"its network is a {module.class_name[:80]!r}; known are {known}")
    network = _part(module, "_modules").get("model")
    if not isinstance(network, Record) or network.class_name != "SongUNet":
        found = network.class_name if isinstance(network, Record) else "nothing"
        raise PriorError(f"under its preconditioning is {found[:80]!r}; only SongUNet is known")
    return NetworkSnapshot(
        preconditioning=module.class_name,
        network=network.class_name,
        preconditioning_arguments=_arguments(module),
        network_arguments=_arguments(network),
        weights=_weights(network),
    )


def _arguments(module: Record) -> dict[str, Any]:
    """The keyword arguments a module was made with: text, numbers, truth values and lists of them."""
    positional, keywords = module.state.get("_init_args"), module.state.get("_init_kwargs")
    if positional not in ((), [], None) or not isinstance(keywords, dict):
        raise PriorError(f"the arguments of its {module.class_name} are not stored by name")
    return {str(name): _plain(value, str(name)) for name, value in keywords.items()}


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, list | tuple) and all(isinstance(v, str | int | float | None) for v in value):
        return list(value)
    if isinstance(value, str | int | float | None):
        return value
    raise PriorError(f"its argument '{name[:80]}' is not plain data")


def _weights(module: Record) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers by their dotted names, in PyTorch's order."""
    weights: dict[str, torch.Tensor] = {}
    waiting = [("", module)]
    visited = 0
    while waiting:
        visited += 1
        if visited > _MOST_LAYERS:
            raise PriorError("it has too many layers, or layers that contain themselves")
        prefix, layer = waiting.pop()
        transient = layer.state.get("_non_persistent_buffers_set") or set()
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _part(layer, kind).items():
                if tensor is None or (kind == "_buffers" and name in transient):
                    continue
                if not isinstance(tensor, torch.Tensor):
                    raise PriorError(f"its weight '{prefix}{name}' is not a tensor")
                weights[f"{prefix}{name}"] = tensor
        children = [(name, child) for name, child in _part(layer, "_modules").items() if child is not None]
        for name, child in reversed(children):
            if not isinstance(child, Record) or len(prefix) > 1000:
                raise PriorError(f"its layer '{prefix[:80]}{name}' is not a layer")
            waiting.append((f"{prefix}{name}.", child))
    return weights


def _part(module: Record, name: str) -> dict[str, Any]:
    """One of a layer's dictionaries; older PyTorch leaves none out, so a missing one is damage."""
    part = module.state.get(name) if isinstance(module.state, dict) else None
    if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
        raise PriorError(f"its layer {module.class_name[:80]!r} has no {name}")
    return part
