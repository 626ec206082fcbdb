"""The NCSN++ checkpoints of Song et al. 2022 (score_inverse_problems, flax), as weights of `priors.ncsnpp`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from klip_engine.errors import PriorError
from klip_engine.priors.flax_checkpoint import Array

_AVERAGED = "params_ema/"


def averaged_parameters(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The exponential moving average of the parameters, which is what the published samplers use.

    arrays: of `read_checkpoint`. Takes `params_ema`, at whatever depth, or a tree that is the parameters alone; raises
    PriorError when neither is there.
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

    flax keeps convolutions as [h, w, in, out] and dense layers as [in, out], PyTorch as [out, in, h, w] and [out, in];
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
