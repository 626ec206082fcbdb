"""What samplers share: the measurement they get, the steps they yield, the noise they use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from klip_engine.operators.base import LinearOperator
from klip_engine.priors.base import Denoiser


@dataclass(frozen=True)
class Measurement:
    """y = A x + n for a batch of images.

    data: [batch, *operator.measurement_shape]; variance: of n, one number or a tensor like `data`.
    """

    operator: LinearOperator
    data: torch.Tensor
    variance: float | torch.Tensor

    def normal_equations(self, image: torch.Tensor) -> torch.Tensor:
        """A^T V^-1 A x, the data term's Hessian applied to a batch of images."""
        return self.operator.adjoint(self.operator.forward(image) / self.variance)

    def repeated(self, samples: int) -> Measurement:
        """Every measurement `samples` times in a row, for as many posterior samples of each image."""
        variance = self.variance
        if isinstance(variance, torch.Tensor) and variance.ndim > 0:
            variance = variance.repeat_interleave(samples, dim=0)
        return Measurement(self.operator, self.data.repeat_interleave(samples, dim=0), variance)

    def double(self) -> Measurement:
        """The same in double precision."""
        variance = self.variance.double() if isinstance(self.variance, torch.Tensor) else self.variance
        return Measurement(self.operator, self.data.double(), variance)

    def back_projection(self) -> torch.Tensor:
        """A^T V^-1 y."""
        return self.operator.adjoint(self.data / self.variance)


@dataclass(frozen=True)
class Step:
    """One noise level of a posterior sampler: E[x0 | x_t] and E[x0 | x_t, y] at the same x_t.

    Tensors are [batch, channels, height, width]; `log_variance` is the prior's, where it predicts one.
    update, diffusion: of samplers whose published code keeps them, the measurement's update of x_t normalised as
    that code does, and g(t); None at noise levels that it does not keep.
    """

    sigma: float
    prior_mean: torch.Tensor
    posterior_mean: torch.Tensor
    log_variance: torch.Tensor | None = None
    update: torch.Tensor | None = None
    diffusion: float | None = None


class Sampler(Protocol):
    """A posterior sampler, iterated from the highest noise level to the lowest.

    The posterior mean of the last step is the sample. It runs under `torch.no_grad`; a sampler that needs
    gradients enables them itself.
    """

    @property
    def levels(self) -> list[float]:
        """The noise levels it will visit, from high to low."""
        ...

    @property
    def evaluations(self) -> int:
        """Network evaluations per sample."""
        ...

    def __call__(self, denoiser: Denoiser, measurement: Measurement, noise: ItemNoise) -> Iterator[Step]:
        """Yield one `Step` per noise level for the whole batch."""
        ...


class ItemNoise:
    """Standard normal images whose values depend on the item alone, not on batch size or order.

    Each item (a slice and the number of its sample) has its own CPU generator, seeded by a hash of the run's
    seed and the item. antithetic: every second sample of a slice gets the negative of the noise of the one before
    it (antithetic variates, Hammersley and Morton 1956): each is still standard normal, but in their mean whatever
    the network answers linearly to the noise cancels.
    """

    def __init__(
        self,
        seed: int,
        items: Sequence[tuple[int, int]],
        shape: tuple[int, ...],
        device: str,
        antithetic: bool = False,
    ) -> None:
        self.seed = seed
        self._signs = torch.tensor([-1.0 if antithetic and sample % 2 else 1.0 for _, sample in items])
        group = 2 if antithetic else 1
        self._generators = [seeded_generator(seed, number, sample - sample % group) for number, sample in items]
        self._shape = shape
        self._device = device

    def __len__(self) -> int:
        return len(self._generators)

    def draw(self) -> torch.Tensor:
        """The next standard normal image of every item, [items, *shape]."""
        images = [torch.randn(self._shape, generator=generator) for generator in self._generators]
        signs = self._signs.view(-1, *[1] * len(self._shape))
        return (signs * torch.stack(images)).to(self._device)


def seeded_generator(*key: int | str) -> torch.Generator:
    """A CPU generator whose numbers depend on the key alone."""
    digest = hashlib.sha256("/".join(str(part) for part in key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
