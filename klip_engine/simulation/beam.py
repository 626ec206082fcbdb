"""What a beam sees of a body and what arrives behind it: where one energy and many differ."""

from __future__ import annotations

from typing import Protocol

import torch

from klip_engine.operators import hu_to_mu


class Beam(Protocol):
    """materials: into how many images a body is taken apart; their line integrals have no unit."""

    materials: int

    def taken_apart(self, hu: torch.Tensor) -> torch.Tensor:
        """Attenuation per mm of each material, [materials, ..] of HU [..]."""
        ...

    def transmission(self, integrals: torch.Tensor) -> torch.Tensor:
        """Signal behind the body over that in air, [..] of line integrals [materials, ..]."""
        ...

    def corrected(self, line_integral: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the scanner makes of a measured line integral, and the derivative of that; of the same shape."""
        ...


class OneEnergy:
    """The beam of the reconstruction: every material attenuates by its HU."""

    materials = 1

    def __init__(self, mu_water_per_mm: float) -> None:
        self._mu_water_per_mm = mu_water_per_mm

    def taken_apart(self, hu: torch.Tensor) -> torch.Tensor:
        """Attenuation per mm, [1, ..] of HU [..]."""
        return hu_to_mu(hu, self._mu_water_per_mm)[None]

    def transmission(self, integrals: torch.Tensor) -> torch.Tensor:
        """exp(-p), [..] of [1, ..]."""
        return torch.exp(-integrals[0])

    def corrected(self, line_integral: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As it is."""
        return line_integral, torch.ones_like(line_integral)
