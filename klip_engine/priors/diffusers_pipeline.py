"""Unconditional DDPM and DDIM pipelines of `diffusers`, saved on disk, as priors (extra `diffusers`).

    FOLDER/model_index.json                                   names the parts
    FOLDER/unet/config.json                                   arguments of a UNet2DModel
    FOLDER/unet/diffusion_pytorch_model.safetensors
    FOLDER/scheduler/scheduler_config.json                    the noise schedule and what the network predicts

Only plain data and safetensors are read: no pipeline class is loaded, nothing is fetched. Between two training
times and in the unit of the engine the model is a DDPM as in `priors.ddpm`; the network may predict the noise, the
clean image, or v = sqrt(abar) eps - sqrt(1 - abar) x0 (Salimans and Ho, "Progressive Distillation", ICLR 2022).
The scheduler's own clipping of its estimate to [-1, 1] (clip_sample) is not done: it would stop gradients.
"""

from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from klip_engine.errors import PriorError
from klip_engine.priors.architectures import folded, loaded_network
from klip_engine.priors.base import PriorMean
from klip_engine.priors.ddpm import DDPMDenoiser

NETWORK = "diffusers.UNet2DModel"
_PREDICTIONS = ("epsilon", "sample", "v_prediction")
_MOST_TIMES = 100_000
_WEIGHTS = "diffusion_pytorch_model"


class DiffusersDenoiser(DDPMDenoiser):
    """A DDPM whose network predicts "epsilon", "sample" or "v_prediction"; raises ValueError for anything else."""

    family = "diffusers"

    def __init__(self, *arguments: Any, prediction: str = "epsilon", **diffusion: Any) -> None:
        super().__init__(*arguments, **diffusion)
        if prediction not in _PREDICTIONS:
            raise ValueError(f"its network predicts '{prediction}', not one of {', '.join(_PREDICTIONS)}")
        self.prediction = prediction

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> PriorMean:
        """E[x0 | x_t = x]; x [batch, channels, h, w], sigma [batch]."""
        level = sigma.view(-1, 1, 1, 1)
        root_alpha_bar = (1 + level**2).rsqrt()
        out = folded(self.network, x * root_alpha_bar, self.time(sigma).to(x.dtype), self.space_to_depth)
        out = out[:, : self.channels]
        if self.prediction == "sample":
            return PriorMean(out)
        if self.prediction == "v_prediction":
            return PriorMean(root_alpha_bar**2 * x - level * root_alpha_bar * out)
        return PriorMean(x - level * out)

    def config(self) -> dict[str, Any]:
        """Network and schedule as a bundle holds them."""
        config = super().config()
        config["diffusion"]["prediction"] = self.prediction
        return config


class UNet2D(nn.Module):
    """A `UNet2DModel` of diffusers, called as the engine calls its networks."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        try:
            from diffusers import UNet2DModel
        except ImportError as error:
            raise ImportError('pip install "klip-engine[diffusers]"') from error
        self.unet = UNet2DModel(**arguments)

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x [batch, channels, h, w], timesteps [batch], which may lie between training times."""
        out: torch.Tensor = self.unet(x, timesteps, return_dict=False)[0]
        return out


def is_pipeline(folder: Path) -> bool:
    """Whether a folder is a saved diffusers pipeline."""
    return (folder / "model_index.json").is_file()


def read_pipeline(folder: Path) -> tuple[DiffusersDenoiser, str]:
    """The pipeline's denoiser, for images in [-1, 1], and the sha256 of what makes it.

    Raises PriorError with a sentence when it is not an unconditional DDPM or DDIM pipeline, has no safetensors
    weights, or is damaged, or when diffusers is not installed.
    """
    try:
        index = _json(folder / "model_index.json")
        if index.get("unet") != ["diffusers", "UNet2DModel"]:
            raise ValueError(f"its network is {index.get('unet')}, not a UNet2DModel of diffusers")
        arguments = _network_arguments(_json(folder / "unet" / "config.json"))
        schedule = _json(folder / "scheduler" / "scheduler_config.json")
        weights = _weight_file(folder / "unet")
        network = loaded_network(
            arguments, NETWORK, {f"unet.{name}": value for name, value in load_file(weights).items()}
        )
        size, channels = arguments["sample_size"], arguments["in_channels"]
        denoiser = DiffusersDenoiser(
            network,
            (size, size) if isinstance(size, int) else tuple(size),
            betas=schedule_betas(schedule),
            channels=channels,
            learned_variance=arguments["out_channels"] == 2 * channels,
            prediction=schedule.get("prediction_type", "epsilon"),
        )
    except ImportError as error:
        raise PriorError(f"the pipeline {folder} needs the package diffusers: {error}") from error
    except (
        OSError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
        SafetensorError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PriorError(f"the pipeline {folder} cannot be used: {reason}") from error
    plain = json.dumps(denoiser.config(), sort_keys=True, separators=(",", ":"))
    return denoiser.eval().requires_grad_(False), hashlib.sha256(weights.read_bytes() + plain.encode()).hexdigest()


def schedule_betas(config: dict[str, Any]) -> list[float]:
    """The betas of a diffusers scheduler from its configuration: linear, scaled_linear, squaredcos_cap_v2, stored.

    Raises ValueError for another schedule.
    """
    if config.get("rescale_betas_zero_snr"):
        raise ValueError("its last noise level is infinite (rescale_betas_zero_snr), which has no finite sigma")
    if config.get("trained_betas") is not None:
        return [float(beta) for beta in config["trained_betas"]]
    kind = config.get("beta_schedule", "linear")
    steps = int(config.get("num_train_timesteps", 1000))
    if not 2 <= steps <= _MOST_TIMES:
        raise ValueError(f"its noise schedule has {steps} training times, not 2 to {_MOST_TIMES}")
    first, last = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    if kind == "linear":
        return [float(b) for b in torch.linspace(first, last, steps, dtype=torch.float64)]
    if kind == "scaled_linear":
        roots = torch.linspace(math.sqrt(first), math.sqrt(last), steps, dtype=torch.float64)
        return [float(b) for b in roots**2]
    if kind == "squaredcos_cap_v2":  # Nichol and Dhariwal 2021, equation 17, with beta at most 0.999
        alpha_bar = [math.cos((n / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for n in range(steps + 1)]
        return [min(1 - after / before, 0.999) for before, after in pairwise(alpha_bar)]
    raise ValueError(f"its noise schedule '{kind}' is not linear, scaled_linear or squaredcos_cap_v2")


def _network_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the UNet2DModel, without diffusers' own remarks, which begin with an underscore."""
    if config.get("num_class_embeds") or config.get("class_embed_type"):
        raise ValueError("its network is conditioned on classes; only unconditional ones are priors")
    if config.get("time_embedding_type", "positional") != "positional":
        raise ValueError(f"its network reads time as '{config['time_embedding_type']}', not by its position")
    if not config.get("sample_size"):
        raise ValueError("its unet/config.json does not state the size of the images (sample_size)")
    defaults = {"in_channels": 3, "out_channels": 3}
    return defaults | {name: value for name, value in config.items() if not name.startswith("_")}


def _weight_file(folder: Path) -> Path:
    path = folder / f"{_WEIGHTS}.safetensors"
    if path.is_file():
        return path
    if (folder / f"{_WEIGHTS}.bin").exists():
        raise ValueError(
            "its weights are a pickle (.bin), which is not opened; save it anew with save_pretrained(FOLDER), "
            "which writes safetensors"
        )
    raise ValueError(f"it has no weights: {path.name} is missing or in several parts")


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path.name} is missing") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return value
