"""Priors on disk: a MONAI bundle with safetensors weights, a model card and a hash.

    NAME/configs/metadata.json   MONAI's fields, and under "klip" the schema, family, grid or image, hash, training
    NAME/configs/inference.json  the network as MONAI describes it, and what the prior's family adds to it
    NAME/models/model.safetensors
    NAME/docs/README.md          the model card
    NAME/null/*.json             null distributions (written by `klip-engine calibrate`)
    NAME/reference/              healthy slices for null distributions of new settings (`priors.reference`)

Priors of CT have a working grid; those of other pictures have none, but an "image" (shape, channels, value_range).
Loading runs no code from the bundle: only registered families (`priors.families`) and networks
(`priors.architectures`) are built, their arguments are plain data, and weights are safetensors.
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
from torch import nn

from klip_engine.errors import KlipError, PriorError, ResourceError
from klip_engine.priors.architectures import load_weights, parameters_at_most
from klip_engine.priors.base import Denoiser, NetworkDenoiser
from klip_engine.priors.diffusers_pipeline import is_pipeline, read_pipeline
from klip_engine.priors.families import DEFAULT_FAMILY, Family, family_of, find_family
from klip_engine.working_grid import WorkingGrid

SCHEMA = "klip-prior/1"
DEFAULT_PRIOR = "default"
_BUILT_IN = Path(__file__).resolve().parent.parent / "data" / "priors"
_NAME = re.compile(r"^[A-Za-z0-9_-]+$")
_WEIGHTS = Path("models") / "model.safetensors"
_VALUE_RANGE = [-1, 1]


@dataclass(frozen=True)
class PriorBundle:
    """A loaded prior: the denoiser, the grid it works on (None: it is not of CT), and what identifies it."""

    name: str
    denoiser: Denoiser
    grid: WorkingGrid | None
    sha256: str
    folder: Path
    training: dict[str, Any]

    @property
    def family(self) -> str:
        """Which of the families in `priors.families` it is of."""
        return str(getattr(self.denoiser, "family", "unknown"))

    @property
    def ct_grid(self) -> WorkingGrid:
        """The working grid; raises PriorError for a prior that is not of CT."""
        if self.grid is None:
            raise PriorError(
                f"the prior '{self.name}' is of pictures, not of CT: it has no working grid; use another"
            )
        return self.grid

    @property
    def pixel_size(self) -> float:
        """Side of a pixel in mm; 1 for a prior that is not of CT, whose lengths are counted in pixels."""
        return 1.0 if self.grid is None else self.grid.pixel_mm

    @property
    def built_in(self) -> bool:
        """Whether it is one of those that come with the engine."""
        return self.folder.resolve().parent == _BUILT_IN

    def on(self, device: str) -> PriorBundle:
        """The same prior with its network on a device; raises ResourceError when it does not fit there."""
        try:
            if isinstance(self.denoiser, nn.Module):
                self.denoiser.to(torch.device(device))
        except (RuntimeError, AssertionError) as error:
            raise ResourceError(f"the device '{device}' cannot hold the prior: {_first_line(error)}") from error
        return self

    def identity(self) -> dict[str, Any]:
        """Name and hash, as written into every result."""
        return {"name": self.name, "hash": f"sha256:{self.sha256}"}


def load_prior(name: str | Path = DEFAULT_PRIOR, device: str = "cpu") -> PriorBundle:
    """Load a prior by the name of a built-in one, from a bundle folder or from a saved pipeline of diffusers.

    Raises PriorError, with a sentence, when it is missing, damaged, of another schema or not ours.
    """
    folder = _BUILT_IN / str(name)
    if not _NAME.match(str(name)) or not folder.is_dir():
        folder = Path(name)
    if not folder.is_dir():
        known = ", ".join(sorted(p.name for p in _BUILT_IN.glob("*") if p.is_dir())) or "none"
        raise PriorError(f"no prior '{name}': neither a bundle folder nor a built-in one (built in: {known})")
    if is_pipeline(folder):
        denoiser, sha256 = read_pipeline(folder)
        return PriorBundle(folder.resolve().name, denoiser, None, sha256, folder, {}).on(device)
    klip = _schema(folder)
    family = find_family(str(klip.get("family", DEFAULT_FAMILY)))
    try:
        bundle = _load(folder, klip, family)
    except (
        OSError,
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        RuntimeError,
        KlipError,
        SafetensorError,
    ) as error:
        raise PriorError(f"the prior {folder} is damaged: {_first_line(error)}") from error
    except ImportError as error:
        raise PriorError(f"the prior {folder} needs a package that is not installed: {error}") from error
    return bundle.on(device)


def save_bundle(
    folder: Path,
    denoiser: NetworkDenoiser,
    grid: WorkingGrid | None,
    *,
    training: dict[str, Any],
    model_card: str,
    description: str,
    dtype: torch.dtype = torch.float16,
) -> str:
    """Write a bundle and return its sha256 (weights, family, network and grid).

    grid: None for a prior that is not of CT, with images in [-1, 1]; training: what the prior saw, for metadata and
    results; dtype: of the stored weights. Raises PriorError for a denoiser of no registered family. Every file is
    complete before the first takes its place; a bundle torn between two versions would not have its own hash.
    """
    family = family_of(denoiser)
    config = find_family(family).config_of(denoiser)
    weights = {
        name: (value.to(dtype) if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in denoiser.network.state_dict().items()
    }
    weight_bytes = save(weights)
    if grid is not None:
        _check_fit(denoiser, grid)
    stored_grid = None if grid is None else asdict(grid)
    sha256 = _hash(weight_bytes, config, stored_grid, family)
    klip = {
        "schema": SCHEMA,
        "name": folder.name,
        "family": family,
        "grid": stored_grid,
        "sha256": sha256,
        "training": training,
    }
    if grid is None:
        klip["image"] = _image(denoiser)
    metadata = _monai_metadata(denoiser, description, ct=grid is not None)
    files = {
        _WEIGHTS: weight_bytes,
        Path("configs") / "inference.json": _json(config),
        Path("docs") / "README.md": model_card.encode(),
        Path("configs") / "metadata.json": _json(metadata | {"klip": klip}),
    }
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).with_suffix(".partial").write_bytes(content)
    for path in files:
        os.replace((folder / path).with_suffix(".partial"), folder / path)
    return sha256


def _check_fit(denoiser: Denoiser, grid: WorkingGrid) -> None:
    if (1, grid.shape) != (denoiser.channels, denoiser.image_shape):
        raise PriorError(
            f"its images of {denoiser.image_shape} pixels in {denoiser.channels} channels do not fit the working "
            f"grid of CT, {grid.shape} in one"
        )


def _image(denoiser: Denoiser) -> dict[str, Any]:
    """The images of a prior that is not of CT."""
    return {"shape": list(denoiser.image_shape), "channels": denoiser.channels, "value_range": _VALUE_RANGE}


def _hash(weights: bytes, config: dict[str, Any], grid: dict[str, Any] | None, family: str) -> str:
    """sha256 of everything that makes the denoiser what it is; the family counts where it is not the default,
    which has no name in older bundles."""
    what: dict[str, Any] = {"config": config, "grid": grid}
    if family != DEFAULT_FAMILY:
        what["family"] = family
    rest = json.dumps(what, sort_keys=True, separators=(",", ":"))
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


def _load(folder: Path, klip: dict[str, Any], family: Family) -> PriorBundle:
    config = json.loads((folder / "configs" / "inference.json").read_text(encoding="utf-8"))
    stored = load_file(folder / _WEIGHTS)
    with parameters_at_most(len(stored)):
        denoiser = family.build(config)
    sha256 = _hash((folder / _WEIGHTS).read_bytes(), config, klip["grid"], klip.get("family", DEFAULT_FAMILY))
    if sha256 != klip["sha256"]:
        raise ValueError("its weights, network or grid do not have the hash that metadata.json states")
    load_weights(denoiser.network, stored)
    grid = None
    if klip["grid"] is not None:
        grid = WorkingGrid(**(klip["grid"] | {"shape": tuple(klip["grid"]["shape"])}))
        _check_fit(denoiser, grid)
    elif klip["image"] != _image(denoiser):
        raise ValueError(f"its images are {klip['image']}, its network's {_image(denoiser)}")
    frozen = denoiser.eval().requires_grad_(False)
    return PriorBundle(klip["name"], frozen, grid, sha256, folder, klip["training"])


def _monai_metadata(denoiser: Denoiser, description: str, ct: bool) -> dict[str, Any]:
    """The fields MONAI's bundle specification asks for."""
    names = ["HU / 1000, clipped"] if ct else [f"channel {n}, scaled" for n in range(denoiser.channels)]
    image = {
        "type": "image",
        "format": "hounsfield" if ct else "magnitude",
        "modality": "CT" if ct else "photograph",
        "num_channels": denoiser.channels,
        "spatial_shape": list(denoiser.image_shape),
        "dtype": "float32",
        "value_range": _VALUE_RANGE,
        "is_patch_data": False,
        "channel_def": {str(number): name for number, name in enumerate(names)},
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
        "task": "Diffusion prior of healthy CT slices" if ct else "Diffusion prior of images",
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
