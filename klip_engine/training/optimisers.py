"""What turns gradients into steps: AdamW, or Muon for the weights that are matrices.

- adamw: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2.
- muon: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024: the momentum of a matrix is
  replaced by the nearest orthogonal one, scaled as in Liu et al., "Muon is Scalable for LLM Training", 2025,
  equation 4, so that AdamW's learning rate and weight decay serve both. A convolution is the matrix of its output
  channels by everything else; biases, norms, the embedding of the noise level, and the first and the last
  convolution keep AdamW.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from klip_engine.errors import UsageError

OPTIMISERS = ("adamw", "muon")


def check_optimiser(name: str) -> None:
    """Raise UsageError for a name that is none of `OPTIMISERS`."""
    if name not in OPTIMISERS:
        raise UsageError(f"no optimiser is named '{name}'; use {' or '.join(OPTIMISERS)}")


class Optimiser:
    """One step for all weights of a network, at one learning rate."""

    def __init__(self, name: str, network: nn.Module, learning_rate: float, weight_decay: float) -> None:
        check_optimiser(name)
        hidden = _hidden_convolutions(network) if name == "muon" else []
        taken = {id(weights) for weights in hidden}
        others = [weights for weights in network.parameters() if id(weights) not in taken]
        self._parts: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(others, lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.99))
        }
        self._matrices = [(weights, nn.Parameter(weights.detach().flatten(1))) for weights in hidden]
        if hidden:
            self._parts["muon"] = torch.optim.Muon(
                [matrix for _, matrix in self._matrices],
                lr=learning_rate,
                weight_decay=weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )

    def step(self, learning_rate: float) -> None:
        """Change the weights by their gradients."""
        for weights, matrix in self._matrices:  # they share their memory
            matrix.grad = None if weights.grad is None else weights.grad.flatten(1)
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; raises ValueError for another optimiser's."""
        if set(state) != set(self._parts):
            raise ValueError("another optimiser")
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def _hidden_convolutions(network: nn.Module) -> list[nn.Parameter]:
    """Kernels of all convolutions of images but the first and the last, in the order of the network."""
    kernels = [weights for weights in network.parameters() if weights.ndim == 4]
    return kernels[1:-1]
