"""Priors on disk: a MONAI bundle with safetensors weights, a model card and a hash.

    NAME/configs/metadata.json   MONAI's fields, and under "klip" the schema, grid, noise range, hash, training
    NAME/configs/inference.json  the network as MONAI describes it, and our preconditioning
    NAME/models/model.safetensors
    NAME/docs/README.md          the model card
    NAME/null/*.json             null distributions (written by `klip-engine calibrate`)
    NAME/reference/              healthy slices for null distributions of new settings (`priors.reference`)

Loading runs no code from the bundle: the only network class accepted is MONAI's `DiffusionModelUNet`, its
arguments are plain data, and weights are safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from importlib import metadata as package_metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from klip_engine.errors import InputError, PriorError, ResourceError
from klip_engine.priors.edm import EDMDenoiser
from klip_engine.priors.network import NETWORK_TARGET, build_network
from klip_engine.volume import WorkingGrid

SCHEMA = "klip-prior/1"
DEFAULT_PRIOR = "default"
_BUILT_IN = Path(__file__).resolve().parent.parent / "data" / "priors"
_NAME = re.compile(r"^[A-Za-z0-9_-]+$")
_WEIGHTS = Path("models") / "model.safetensors"


@dataclass(frozen=True)
class PriorBundle:
    """A loaded prior: the denoiser, the grid it works on, and what identifies it."""

    name: str
    denoiser: EDMDenoiser
    grid: WorkingGrid
    sha256: str
    folder: Path
    training: dict[str, Any]

    def on(self, device: str) -> PriorBundle:
        """The same prior with its network on a device; raises ResourceError when it does not fit there."""
        try:
            self.denoiser.to(torch.device(device))
        except (RuntimeError, AssertionError) as error:
            raise ResourceError(f"the device '{device}' cannot hold the prior: {_first_line(error)}") from error
        return self

    def identity(self) -> dict[str, Any]:
        """Name and hash, as written into every result."""
        return {"name": self.name, "hash": f"sha256:{self.sha256}"}


def load_prior(name: str | Path = DEFAULT_PRIOR, device: str = "cpu") -> PriorBundle:
    """Load a prior by the name of a built-in one or from a bundle folder.

    Raises PriorError, with a sentence, when it is missing, damaged, of another schema or not ours.
    """
    folder = _BUILT_IN / str(name)
    if not _NAME.match(str(name)) or not folder.is_dir():
        folder = Path(name)
    if not folder.is_dir():
        known = ", ".join(sorted(p.name for p in _BUILT_IN.glob("*") if p.is_dir())) or "none"
        raise PriorError(f"no prior '{name}': neither a bundle folder nor a built-in one (built in: {known})")
    klip = _schema(folder)
    try:
        bundle = _load(folder, klip)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, InputError, SafetensorError) as error:
        raise PriorError(f"the prior {folder} is damaged: {_first_line(error)}") from error
    return bundle.on(device)


def save_bundle(
    folder: Path,
    denoiser: EDMDenoiser,
    grid: WorkingGrid,
    network: dict[str, Any],
    *,
    training: dict[str, Any],
    model_card: str,
    description: str,
) -> str:
    """Write a bundle and return its sha256 (weights, network and grid); weights are stored as float16.

    network: MONAI's keyword arguments; training: what the prior saw, for metadata and results. Every file is
    complete before the first takes its place; a bundle torn between two versions would not have its own hash.
    """
    weights = {k: v.detach().cpu().half().contiguous() for k, v in denoiser.network.state_dict().items()}
    config = _inference_config(denoiser, network)
    weight_bytes = save(weights)
    sha256 = _hash(weight_bytes, config, asdict(grid))
    klip = {
        "schema": SCHEMA,
        "name": folder.name,
        "grid": asdict(grid),
        "sha256": sha256,
        "training": training,
    }
    files = {
        _WEIGHTS: weight_bytes,
        Path("configs") / "inference.json": _json(config),
        Path("docs") / "README.md": model_card.encode(),
        Path("configs") / "metadata.json": _json(_monai_metadata(denoiser, description) | {"klip": klip}),
    }
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).with_suffix(".partial").write_bytes(content)
    for path in files:
        os.replace((folder / path).with_suffix(".partial"), folder / path)
    return sha256


def _hash(weights: bytes, config: dict[str, Any], grid: dict[str, Any]) -> str:
    """sha256 of everything that makes the denoiser what it is."""
    rest = json.dumps({"config": config, "grid": grid}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(weights + rest.encode()).hexdigest()


def _schema(folder: Path) -> dict[str, Any]:
    """The "klip" part of metadata.json, its schema checked."""
    path = folder / "configs" / "metadata.json"
    try:
        klip = json.loads(path.read_text(encoding="utf-8")).get("klip")
    except (OSError, ValueError, AttributeError) as error:
        raise PriorError(f"{folder} is not a prior: configs/metadata.json is missing or not JSON") from error
    if not isinstance(klip, dict) or "schema" not in klip:
        raise PriorError(f"{folder} is a bundle but not a prior of this engine (no 'klip' in metadata.json)")
    if klip["schema"] != SCHEMA:
        raise PriorError(
            f"the prior {folder} has schema '{klip['schema']}', this engine reads '{SCHEMA}'; "
            "use the engine version it was made with or train it anew"
        )
    return klip


def _load(folder: Path, klip: dict[str, Any]) -> PriorBundle:
    config = json.loads((folder / "configs" / "inference.json").read_text(encoding="utf-8"))
    network = dict(config["network_def"])
    if network.pop("_target_") != NETWORK_TARGET:
        raise ValueError(f"its network is not {NETWORK_TARGET}")
    preconditioning = dict(config["preconditioning"])
    shape = tuple(preconditioning.pop("image_shape"))
    sha256 = _hash((folder / _WEIGHTS).read_bytes(), config, klip["grid"])
    if sha256 != klip["sha256"]:
        raise ValueError("its weights, network or grid do not have the hash that metadata.json states")
    denoiser = EDMDenoiser(build_network(network), shape, **preconditioning)
    weights = {k: v.float() for k, v in load_file(folder / _WEIGHTS).items()}
    denoiser.network.load_state_dict(weights)
    grid = WorkingGrid(**(klip["grid"] | {"shape": tuple(klip["grid"]["shape"])}))
    if grid.shape != shape:
        raise ValueError(f"its grid {grid.shape} and its network {shape} differ")
    frozen = denoiser.eval().requires_grad_(False)
    return PriorBundle(klip["name"], frozen, grid, sha256, folder, klip["training"])


def _inference_config(denoiser: EDMDenoiser, network: dict[str, Any]) -> dict[str, Any]:
    return {
        "network_def": {"_target_": NETWORK_TARGET} | network,
        "preconditioning": {
            "image_shape": list(denoiser.image_shape),
            "space_to_depth": denoiser.space_to_depth,
            "data_mean": denoiser.data_mean,
            "sigma_data": denoiser.sigma_data,
            "sigma_min": denoiser.sigma_min,
            "sigma_max": denoiser.sigma_max,
        },
    }


def _monai_metadata(denoiser: EDMDenoiser, description: str) -> dict[str, Any]:
    """The fields MONAI's bundle specification asks for."""
    image = {
        "type": "image",
        "format": "hounsfield",
        "modality": "CT",
        "num_channels": 1,
        "spatial_shape": list(denoiser.image_shape),
        "dtype": "float32",
        "value_range": [-1, 1],
        "is_patch_data": False,
        "channel_def": {"0": "HU / 1000, clipped"},
    }
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "meta_schema_20240725.json",
        "version": "0.1.0",
        "changelog": {"0.1.0": "first version"},
        "monai_version": package_metadata.version("monai"),
        "pytorch_version": package_metadata.version("torch").split("+")[0],
        "numpy_version": package_metadata.version("numpy"),
        "required_packages_version": {"safetensors": package_metadata.version("safetensors")},
        "task": "Diffusion prior of healthy CT slices",
        "description": description,
        "authors": "KLIP for 3D Slicer",
        "copyright": "See docs/README.md for the attributions of the training data",
        "intended_use": "Research only; not for diagnosis or treatment",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": image}},
    }


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
