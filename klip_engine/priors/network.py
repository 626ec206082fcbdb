"""The U-Net of the priors trained here, described by plain data so that a bundle can hold and rebuild it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from klip_engine.priors.architectures import build_network
from klip_engine.priors.ddpm import DDPMDenoiser, linear_betas
from klip_engine.priors.edm import EDMDenoiser
from klip_engine.priors.patches import PatchEDMDenoiser
from klip_engine.priors.ve import VEDenoiser


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the MONAI `DiffusionModelUNet`; the names are MONAI's."""

    channels: tuple[int, ...] = (32, 64, 96, 128)
    num_res_blocks: tuple[int, ...] = (1, 1, 1, 1)
    attention_levels: tuple[bool, ...] = (False, False, False, False)
    norm_num_groups: int = 16
    num_head_channels: int = 32
    space_to_depth: int = 2

    @property
    def step(self) -> int:
        """The sides of its images must be multiples of this many pixels."""
        return int(self.space_to_depth * 2 ** (len(self.channels) - 1))

    def monai_arguments(self, inputs: int = 3, outputs: int = 2) -> dict[str, Any]:
        """Keyword arguments of `DiffusionModelUNet`: by default image and two position channels in, mean and log
        variance out, each folded `space_to_depth` times along both axes."""
        folded = self.space_to_depth**2
        arguments = asdict(self)
        del arguments["space_to_depth"]
        return {"spatial_dims": 2, "in_channels": inputs * folded, "out_channels": outputs * folded} | {
            name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()
        }


def build_denoiser(config: NetworkConfig, image_shape: tuple[int, int]) -> EDMDenoiser:
    """A fresh, untrained prior."""
    return EDMDenoiser(build_network(config.monai_arguments()), image_shape, space_to_depth=config.space_to_depth)


def build_patch_denoiser(config: NetworkConfig, image_shape: tuple[int, int], patch: int = 56) -> PatchEDMDenoiser:
    """A fresh patch prior."""
    network = build_network(config.monai_arguments())
    return PatchEDMDenoiser(network, image_shape, patch=patch, space_to_depth=config.space_to_depth)


def build_ddpm(config: NetworkConfig, image_shape: tuple[int, int], channels: int = 1) -> DDPMDenoiser:
    """A fresh DDPM with the noise schedule of Ho et al. 2020."""
    return DDPMDenoiser(
        build_network(config.monai_arguments(channels, channels)),
        image_shape,
        betas=linear_betas(),
        channels=channels,
        space_to_depth=config.space_to_depth,
    )


def build_ve(config: NetworkConfig, image_shape: tuple[int, int], channels: int = 1) -> VEDenoiser:
    """A fresh score model in variance-exploding form."""
    return VEDenoiser(
        build_network(config.monai_arguments(channels, channels)),
        image_shape,
        channels=channels,
        space_to_depth=config.space_to_depth,
    )
