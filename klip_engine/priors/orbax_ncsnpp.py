"""The NCSN++ checkpoints of Song et al. 2022 (score_inverse_problems, flax), as weights of `priors.ncsnpp`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from klip_engine.errors import PriorError
from klip_engine.priors.flax_checkpoint import Array

_MOST_LEVELS = 16
_AVERAGED = "params_ema/"


@dataclass(frozen=True)
class NCSNppConfig:
    """What a checkpoint does not say of itself; the names are those of the published configurations.

    Everything else is as in all of them: Fourier features, FIR resampling (1, 3, 3, 1), BigGAN blocks, input and
    output skips that are summed, images in [0, 1]. Raises TypeError for values that are none.
    """

    image_size: int
    nf: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    attn_resolutions: tuple[int, ...]
    sigma_max: float
    sigma_min: float = 0.01
    channels: int = 1

    def __post_init__(self) -> None:
        for name in ("ch_mult", "attn_resolutions"):
            numbers = getattr(self, name)
            if not isinstance(numbers, list | tuple) or not all(_is_whole(n) for n in numbers):
                raise TypeError(f"{name} is a list of whole numbers")
            object.__setattr__(self, name, tuple(numbers))
        if not 1 <= len(self.ch_mult) <= _MOST_LEVELS:
            raise TypeError(f"ch_mult has 1 to {_MOST_LEVELS} numbers")
        for name in ("image_size", "nf", "num_res_blocks", "channels"):
            if not _is_whole(getattr(self, name)):
                raise TypeError(f"{name} is a whole number from 1 on")
        levels = (self.sigma_min, self.sigma_max)
        if not all(type(n) in (int, float) for n in levels) or not 0 < levels[0] < levels[1] < math.inf:
            raise TypeError("sigma_min and sigma_max are numbers above 0, the second the higher")

    def network_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `priors.ncsnpp.NCSNpp` as plain data."""
        return {
            "image_size": self.image_size,
            "channels": self.channels,
            "nf": self.nf,
            "ch_mult": list(self.ch_mult),
            "num_res_blocks": self.num_res_blocks,
            "attn_resolutions": list(self.attn_resolutions),
        }


def _is_whole(value: object) -> bool:
    return type(value) is int and 0 < value < 2**16


CONFIGURATIONS = {
    "ct2d_320": NCSNppConfig(320, 32, (1, 1, 2, 2, 2, 2, 2), 2, (20,), sigma_max=128.0),
    "ldct_512": NCSNppConfig(512, 16, (1, 2, 4, 8, 16, 32, 32), 1, (16,), sigma_max=220.0),
    "ct2d": NCSNppConfig(128, 64, (1, 1, 2, 2, 2, 2), 2, (16,), sigma_max=55.0),
}
"""Published as configs/ve/ct2d_320_ncsnpp_continuous, ldct_512_ncsnpp_continuous and ct2d_ncsnpp_continuous."""


def averaged_parameters(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The exponential moving average of the parameters, which is what the published samplers use.

    arrays: of `read_checkpoint`. Takes `params_ema`, at whatever depth, or a tree that is the parameters alone;
    raises PriorError when neither is there.
    """
    for path in arrays:
        start = f"/{path}".find(f"/{_AVERAGED}")
        if start >= 0:
            root = path[: start + len(_AVERAGED)]
            inner = {name.removeprefix(root): array for name, array in arrays.items() if name.startswith(root)}
            return {name.removeprefix("params/"): array for name, array in inner.items()}
    plain = {name.removeprefix("params/"): array for name, array in arrays.items()}
    if "Conv_0/kernel" in plain:
        return plain
    raise PriorError("the checkpoint has no 'params_ema': it is not one of score_inverse_problems")


def torch_weights(parameters: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """Parameters of flax by their names and in the layout of `priors.ncsnpp.NCSNpp`.

    flax keeps convolutions as [h, w, in, out] and dense layers as [in, out], PyTorch the other way round;
    `kernel` and `scale` are `weight` here, and so are the W and b of the attention's 1 x 1 layers (NIN).
    """
    weights = {}
    for path, array in parameters.items():
        *layers, name = path.split("/")
        tensor = torch.from_numpy(np.ascontiguousarray(array.astype(np.float32)))
        if name == "kernel" and tensor.ndim == 4:
            name, tensor = "weight", tensor.permute(3, 2, 0, 1).contiguous()
        elif tensor.ndim == 2 and name in ("kernel", "W"):
            name, tensor = "weight", tensor.T.contiguous()
        elif name in ("scale", "b"):
            name = {"scale": "weight", "b": "bias"}[name]
        weights[".".join(("layers", *layers, name))] = tensor
    return weights
