"""The U-Net behind the default prior, described by plain data so that a bundle can hold and rebuild it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from klip_engine.priors.architectures import build_network
from klip_engine.priors.edm import EDMDenoiser


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the MONAI `DiffusionModelUNet`; the names are MONAI's."""

    channels: tuple[int, ...] = (32, 64, 96, 128)
    num_res_blocks: tuple[int, ...] = (1, 1, 1, 1)
    attention_levels: tuple[bool, ...] = (False, False, False, False)
    norm_num_groups: int = 16
    num_head_channels: int = 32
    space_to_depth: int = 2

    def monai_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `DiffusionModelUNet`: image and two position channels in, mean and log variance
        out, each folded `space_to_depth` times along both axes."""
        folded = self.space_to_depth**2
        arguments = asdict(self)
        del arguments["space_to_depth"]
        return {"spatial_dims": 2, "in_channels": 3 * folded, "out_channels": 2 * folded} | {
            name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()
        }


def build_denoiser(config: NetworkConfig, image_shape: tuple[int, int]) -> EDMDenoiser:
    """A fresh, untrained prior."""
    return EDMDenoiser(build_network(config.monai_arguments()), image_shape, space_to_depth=config.space_to_depth)
