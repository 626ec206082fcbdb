"""What the families of one network have in common: how a bundle describes them and builds them again."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from klip_engine.priors.architectures import network_definition, network_from
from klip_engine.priors.base import NetworkDenoiser


class DescribedDenoiser(NetworkDenoiser):
    """A `NetworkDenoiser` made of a network, the size of its images and keyword arguments kept under their names.

    section: what a bundle calls these arguments; arguments: their names, which are attributes too.
    """

    section: ClassVar[str] = "diffusion"
    arguments: ClassVar[tuple[str, ...]]

    def config(self) -> dict[str, Any]:
        """Network and arguments as a bundle holds them."""
        arguments = {name: getattr(self, name) for name in self.arguments}
        return {
            "network_def": network_definition(self.network),
            self.section: {"image_shape": list(self.image_shape)} | arguments,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The denoiser `config` describes, without weights."""
        arguments = dict(config[cls.section])
        shape = tuple(arguments.pop("image_shape"))
        return cls(network_from(config["network_def"]), shape, **arguments)
