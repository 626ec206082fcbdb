"""Published weights as bundles: read once, executing nothing of them, kept as safetensors with a model card."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from klip_engine.errors import PriorError, UsageError
from klip_engine.priors.architectures import loaded_network
from klip_engine.priors.base import MOST_PIXELS_A_SIDE, NetworkDenoiser
from klip_engine.priors.bundle import save_bundle
from klip_engine.priors.diffusers_pipeline import is_pipeline, read_pipeline
from klip_engine.priors.edm_pickle import NetworkSnapshot, read_snapshot
from klip_engine.priors.flax_checkpoint import read_checkpoint
from klip_engine.priors.orbax_ncsnpp import CONFIGURATIONS, NCSNppConfig, averaged_parameters, torch_weights
from klip_engine.priors.patches import PatchEDMDenoiser
from klip_engine.priors.plain_edm import PlainEDMDenoiser
from klip_engine.priors.scaled import ValueScale, scaled
from klip_engine.priors.ve import VEDenoiser
from klip_engine.working_grid import WorkingGrid

_MOST_LEVELS = 16
_UNKNOWN = "unknown: ask whoever published the weights before using or passing them on"


@dataclass(frozen=True)
class ImportSettings:
    """What the file does not say and only the user knows.

    kind: a name of `KINDS`. hu: the Hounsfield units that the ends of `values` mean, None for a prior of pictures
    in [-1, 1]; values: the range of pixel values the network was trained on, None for the usual one of the kind.
    pixel_mm: pixel size of CT. shape: rows and columns of whole images, None for the size that the file states.
    patch: size of patches. configuration: of an NCSN++, a known name or a JSON file. licence, source: for the card.
    """

    kind: str
    hu: tuple[float, float] | None = None
    values: tuple[float, float] | None = None
    pixel_mm: float | None = None
    shape: tuple[int, int] | None = None
    patch: int = 56
    configuration: str | None = None
    licence: str | None = None
    source: str | None = None


def import_prior(path: Path, bundle: Path, settings: ImportSettings) -> str:
    """Write a bundle with the weights of a published file and return its sha256.

    Raises PriorError for a file that is not of the kind, UsageError where something is missing or does not fit.
    """
    if settings.kind not in KINDS:
        raise UsageError(f"no kind of weights '{settings.kind}' (known: {', '.join(KINDS)})")
    if (settings.hu is None) != (settings.pixel_mm is None):
        raise UsageError("weights of CT need both --hu and --pixel-mm, those of pictures neither")
    _check_new(bundle)
    if not path.exists():
        raise PriorError(f"no such file or folder: {path}")
    inner, values = KINDS[settings.kind](path, settings)
    denoiser = _in_our_unit(inner, settings, settings.values or values)
    grid = None if settings.pixel_mm is None else WorkingGrid(denoiser.image_shape, settings.pixel_mm)
    if grid is not None and denoiser.channels != 1:
        raise UsageError(f"weights of CT have one channel, these have {denoiser.channels}: leave --hu out")
    facts = {
        "imported": settings.kind,
        "file": path.name,
        "file_sha256": _file_hash(path),
        "source": settings.source or "unknown",
        "licence": settings.licence or "unknown",
        "hu": settings.hu,
        "values": settings.values or values,
    }
    try:
        return save_bundle(
            bundle,
            denoiser,
            grid,
            training=facts,
            model_card=_model_card(bundle.name, denoiser, inner, grid, facts),
            description=f"Imported weights ({settings.kind})",
            dtype=torch.float32,
        )
    except OSError as error:
        raise UsageError(f"{bundle} cannot be written ({error.strerror}); name another folder") from error


def _check_new(bundle: Path) -> None:
    """Raise UsageError unless the bundle's folder is empty or can be made."""
    if bundle.is_dir() and any(bundle.iterdir()):
        raise UsageError(f"{bundle} is not empty; name a new folder for the bundle")
    there = next(place for place in (bundle, *bundle.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UsageError(f"{there} is a file; name a new folder for the bundle")


Imported = tuple[NetworkDenoiser, tuple[float, float]]
"""A denoiser in the network's own unit, and the range of values such networks are usually trained on."""


def _in_our_unit(inner: NetworkDenoiser, settings: ImportSettings, values: tuple[float, float]) -> NetworkDenoiser:
    """Values of the network against HU / 1000, or against [-1, 1] for pictures."""
    ours = (-1.0, 1.0) if settings.hu is None else (settings.hu[0] / 1000, settings.hu[1] / 1000)
    if ours == tuple(values):
        return inner
    try:
        return scaled(inner, ValueScale.between(ours, values))
    except ValueError as error:
        raise UsageError("--hu and --values are a lower and a higher number each") from error


def _edm_pickle(path: Path, settings: ImportSettings) -> Imported:
    snapshot = read_snapshot(path)
    if snapshot.preconditioning == "Patch_EDMPrecond":
        return _patch_edm(path, snapshot, settings), (0.0, 1.0)
    resolution = _whole(path, snapshot, "img_resolution", MOST_PIXELS_A_SIDE)
    shape = settings.shape or (resolution, resolution)
    channels = _channels(path, snapshot)
    network = _song_unet(path, snapshot, shape)
    denoiser = PlainEDMDenoiser(network, shape, channels=channels, **_preconditioning(path, snapshot))
    return denoiser, (-1.0, 1.0)


def _patch_edm(path: Path, snapshot: NetworkSnapshot, settings: ImportSettings) -> PatchEDMDenoiser:
    if settings.shape is None:
        raise UsageError(f"{path} holds a prior of patches: name the rows and columns of whole images with --shape")
    inputs = _channels(path, snapshot)
    named = bool(snapshot.preconditioning_arguments.get("out_channels"))
    channels = _whole(path, snapshot, "out_channels") if named else inputs
    if inputs != channels + 2:
        raise PriorError(f"{path} cannot be imported: its network has no two position channels")
    network = _song_unet(path, snapshot, (settings.patch, settings.patch))
    _check_size(settings.shape, 1)
    return PatchEDMDenoiser(
        network,
        settings.shape,
        patch=settings.patch,
        channels=channels,
        background=(settings.values or (0.0, 1.0))[0],
        **_preconditioning(path, snapshot),
    )


def _preconditioning(path: Path, snapshot: NetworkSnapshot) -> dict[str, Any]:
    """EDM Table 1; the range of noise levels that its samplers use where the network itself has no limit."""
    sigma_data = _number(path, snapshot, "sigma_data", 0.5)
    lowest = max(0.002, _number(path, snapshot, "sigma_min", 0.0))
    highest = min(80.0, _number(path, snapshot, "sigma_max", math.inf))
    if not (0 < sigma_data < math.inf and lowest < highest):
        raise PriorError(
            f"{path} cannot be imported: sigma_data {sigma_data}, sigma_min {lowest} and sigma_max {highest} are "
            "not those of a network of EDM"
        )
    return {
        "space_to_depth": 1,
        "data_mean": 0.0,
        "sigma_data": sigma_data,
        "sigma_min": lowest,
        "sigma_max": highest,
    }


def _channels(path: Path, snapshot: NetworkSnapshot) -> int:
    """Channels of the images under the preconditioning, which are those of its network."""
    channels = _whole(path, snapshot, "img_channels")
    if snapshot.network_arguments.get("in_channels") != channels:
        raise PriorError(f"{path} cannot be imported: images and network differ in their channels")
    return channels


def _whole(path: Path, snapshot: NetworkSnapshot, name: str, most: int = 2**16) -> int:
    """A whole number above 0 that the preconditioning was made with."""
    value = snapshot.preconditioning_arguments.get(name)
    if type(value) is not int or not 1 <= value <= most:
        raise PriorError(
            f"{path} cannot be imported: its {name} is {_shown(value)}, not a whole number up to {most}"
        )
    return value


def _number(path: Path, snapshot: NetworkSnapshot, name: str, default: float) -> float:
    """A number from 0 on that the preconditioning was made with."""
    value = snapshot.preconditioning_arguments.get(name, default)
    if type(value) not in (int, float) or not (0 <= value < 1e300 or value == math.inf):
        raise PriorError(f"{path} cannot be imported: its {name} is {_shown(value)}, not a number from 0 on")
    return float(value)


def _shown(value: Any) -> str:
    """A value of a file, short enough for a sentence."""
    if value is None:
        return "missing"
    if isinstance(value, str):
        return repr(value[:40])
    if isinstance(value, float):
        return f"{value:.3g}"
    # Python refuses to write integers of thousands of digits.
    return str(value) if isinstance(value, int) and abs(value) < 10**18 else "of another kind or size"


def _song_unet(path: Path, snapshot: NetworkSnapshot, size: tuple[int, int]) -> torch.nn.Module:
    """The snapshot's network, for images or patches of a size."""
    arguments = dict(snapshot.network_arguments)
    levels = arguments.get("channel_mult", [1, 2, 2, 2])
    if not isinstance(levels, list) or not 1 <= len(levels) <= _MOST_LEVELS:
        raise PriorError(f"{path} cannot be imported: its channel_mult is no list of 1 to {_MOST_LEVELS} numbers")
    _check_size(size, len(levels))
    for name in ("label_dim", "implicit_mlp"):
        if arguments.pop(name, 0):
            raise PriorError(f"{path} cannot be imported: its network uses {name}, which is not supported")
    arguments.pop("label_dropout", None)
    target = "klip_engine.priors.song_unet.SongUNet"
    # The EDM families call their networks with 25 ln sigma, the published ones want ln sigma / 4.
    return _loaded(path, arguments | {"time_scale": 0.01}, target, snapshot.weights)


def _ncsnpp_flax(path: Path, settings: ImportSettings) -> Imported:
    config = _configuration(settings.configuration)
    weights = torch_weights(averaged_parameters(read_checkpoint(path)))
    shape = settings.shape or (config.image_size, config.image_size)
    _check_size(shape, len(config.ch_mult))
    denoiser = VEDenoiser(
        _loaded(path, config.network_arguments(), "klip_engine.priors.ncsnpp.NCSNpp", weights),
        shape,
        channels=config.channels,
        time_scale=1.0,
        sigma_min=config.sigma_min,
        sigma_max=config.sigma_max,
    )
    return denoiser, (0.0, 1.0)


def _diffusers(path: Path, settings: ImportSettings) -> Imported:
    if not is_pipeline(path):
        raise PriorError(f"{path} is not a saved pipeline: it has no model_index.json")
    return read_pipeline(path)[0], (-1.0, 1.0)


KINDS: dict[str, Callable[[Path, ImportSettings], Imported]] = {
    "edm-pickle": _edm_pickle,
    "ncsnpp-flax": _ncsnpp_flax,
    "diffusers": _diffusers,
}


def _loaded(path: Path, arguments: dict[str, Any], target: str, weights: dict[str, Any]) -> torch.nn.Module:
    """A network with these weights; all of them, and no other."""
    try:
        return loaded_network(arguments, target, weights)
    except (TypeError, ValueError, RuntimeError, LookupError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:300]
        raise PriorError(f"{path} cannot be imported: its weights do not fit its network: {reason}") from error


def _check_size(size: tuple[int, int], levels: int) -> None:
    """Every level of a U-Net halves the image."""
    factor = 2 ** (levels - 1)
    if max(size) > MOST_PIXELS_A_SIDE:
        raise UsageError(f"{size[0]} x {size[1]} pixels are more than {MOST_PIXELS_A_SIDE} a side: choose fewer")
    if min(size) < 1 or size[0] % factor or size[1] % factor:
        raise UsageError(
            f"{size[0]} x {size[1]} pixels cannot be halved {levels - 1} times, as this network does: choose "
            f"multiples of {factor} (--shape, --patch-size)"
        )


def _configuration(name: str | None) -> NCSNppConfig:
    """A known configuration of NCSN++, or one from a JSON file with the fields of `NCSNppConfig`."""
    known = ", ".join(CONFIGURATIONS)
    if name is None:
        raise UsageError(f"an NCSN++ needs --config: {known}, or a JSON file")
    if name in CONFIGURATIONS:
        return CONFIGURATIONS[name]
    try:
        return NCSNppConfig(**json.loads(Path(name).read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"no configuration '{name}': neither a file nor one of {known}") from error
    except (ValueError, TypeError, RecursionError) as error:
        names = ", ".join(field.name for field in fields(NCSNppConfig))
        raise UsageError(f"the configuration {name} is not a JSON object with some of {names}: {error}") from error


def _file_hash(path: Path) -> str:
    """sha256 of a file, or of the files of a folder by name."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _model_card(
    name: str, denoiser: NetworkDenoiser, inner: NetworkDenoiser, grid: WorkingGrid | None, facts: dict[str, Any]
) -> str:
    """Markdown: whose weights these are, what unit they count in, and what nobody has checked."""
    height, width = denoiser.image_shape
    low, high = facts["values"]
    unit = f"pictures in [-1, 1], {denoiser.channels} channel(s)"
    if grid is not None:
        hu_low, hu_high = facts["hu"]
        unit = f"CT on pixels of {grid.pixel_mm:g} mm"
        unit += f"; the network's {low:g} to {high:g} are {hu_low:g} to {hu_high:g} HU"
    licence = _UNKNOWN if facts["licence"] == "unknown" else facts["licence"]
    return "\n".join(
        [
            f"# Prior `{name}`",
            "",
            "Weights that were trained and published elsewhere, imported without change. **Research only; not for "
            "diagnosis or treatment.**",
            "",
            f"- Where they come from: {facts['source']}",
            f"- File: `{facts['file']}` (sha256 {facts['file_sha256']}), read as `{facts['imported']}`",
            f"- Licence: {licence}",
            f"- Prior: family `{inner.family}`, {width} x {height} pixels, {unit}",
            f"- Noise levels: {denoiser.sigma_min:.4g} to {denoiser.sigma_max:.4g} in the unit of the engine",
            "- What it was trained on is not known to this engine. That patients to be examined were not among the "
            "training data, and that its images look like theirs (pixel size, window, table), has to be checked by "
            "whoever uses it; then calibrate it: `klip-engine calibrate`.",
            "",
        ]
    )
