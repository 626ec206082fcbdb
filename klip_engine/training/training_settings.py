"""What to train, how long and how."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from klip_engine.errors import UsageError
from klip_engine.priors.base import NetworkDenoiser
from klip_engine.priors.network import NetworkConfig, build_ddpm, build_denoiser, build_patch_denoiser, build_ve
from klip_engine.training.augmentation import Augmentation
from klip_engine.training.objectives import OBJECTIVES, ObjectiveSettings
from klip_engine.training.optimisers import check_optimiser


@dataclass(frozen=True)
class TrainingSettings:
    """What to train, how long and how. Exactly one of `minutes` (of training, summed over resumed runs) and
    `images` sets the length; the learning rate rises over `warm_up_steps` and follows a cosine over it all.
    patch: side of the patches of `patch-edm`.
    """

    minutes: float | None = None
    images: int | None = None
    batch_size: int = 16
    optimiser: str = "muon"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    sigma_log_mean: float = -1.5
    sigma_log_std: float = 1.5
    beta: float = 0.5
    warm_up_steps: int = 200
    ema_half_life_images: int = 8000
    bfloat16: bool = False
    checkpoint_minutes: float = 5.0
    seed: int = 0
    device: str = "cpu"
    family: str = "edm"
    patch: int = 56
    network: NetworkConfig = field(default_factory=NetworkConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.images is None):
            raise UsageError("set the length of the training by either minutes or images")
        if (self.minutes if self.images is None else self.images) <= 0:  # type: ignore[operator]
            raise UsageError("the length of the training must be more than nothing")
        if not (math.isfinite(self.sigma_log_mean) and 0 <= self.sigma_log_std < math.inf):
            raise UsageError("the noise levels need a mean and a standard deviation of ln sigma, not below 0")
        check_optimiser(self.optimiser)
        if self.warm_up_steps < 1:
            raise UsageError("the warm-up takes one step or more")
        if self.family not in OBJECTIVES:
            raise UsageError(f"no prior of the family '{self.family}' can be trained; use {', '.join(OBJECTIVES)}")
        if self.family == "patch-edm" and (self.patch < 1 or self.patch % self.network.step):
            raise UsageError(f"the patch size must be a multiple of {self.network.step}, not {self.patch}")

    @property
    def objective(self) -> ObjectiveSettings:
        """What the loss needs to know."""
        return ObjectiveSettings(
            self.sigma_log_mean, self.sigma_log_std, self.beta, self.network.step, self.bfloat16
        )

    def fresh_denoiser(self, image_shape: tuple[int, int]) -> NetworkDenoiser:
        """An untrained prior of the family."""
        build: dict[str, Callable[[NetworkConfig, tuple[int, int]], NetworkDenoiser]] = {
            "edm": build_denoiser,
            "patch-edm": partial(build_patch_denoiser, patch=self.patch),
            "ddpm": build_ddpm,
            "ve": build_ve,
        }
        return build[self.family](self.network, image_shape)


def choose_family(family: str, patches: bool, patch_size: int | None) -> str:
    """The family that was asked for; raises UsageError where the answers contradict each other."""
    if patches and family not in ("edm", "patch-edm"):
        raise UsageError(f"patches are trained as the family 'patch-edm', not '{family}'")
    if patch_size is not None and not patches and family != "patch-edm":
        raise UsageError("a patch size is for patch priors: add --patches")
    return "patch-edm" if patches else family


def default_network(family: str) -> NetworkConfig:
    """The network a family is trained with by default; patches are small and stay on their own grid."""
    return NetworkConfig(space_to_depth=1) if family == "patch-edm" else NetworkConfig()
