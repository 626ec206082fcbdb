"""A beam of many energies: bodies of water and bone harden it, and the scanner corrects for water."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from klip_engine.simulation.materials import attenuation_per_mm, energy_of_water

WATER_UP_TO_HU = 100.0
"""Denser voxels are a mixture of tissue of this HU and cortical bone (contrast agent then passes for bone)."""
_FILTER_MM = 10.0
"""Aluminium that filters as tube, window and filters do: at 120 kV its half-value layer is that of CT tubes,
7 mm of aluminium."""
_ENERGY_STEP_KEV = 3.0
_LEAST_KEV = 16.0
_LONGEST_WATER = 12.0
"""Line integral up to which water is corrected: 625 mm."""
_DEGREE = 6


class ManyEnergies:
    """The beam of a tube at `kvp` kilovolts on a detector that sums energies.

    The spectrum is that of Kramers (Phil. Mag. 46, 1923, 836: photons in proportion to (E0 - E) / E, no
    characteristic lines) behind `_FILTER_MM` of aluminium. HU are taken to be right at the energy where water
    attenuates by `mu_water_per_mm`; up to `WATER_UP_TO_HU` everything is water, above a mixture with bone. The
    correction is the polynomial of the measured line integral that gives water its length (Herman, Phys. Med. Biol.
    24(1), 1979, 81); bone keeps its dark bands.
    """

    materials = 2

    def __init__(self, kvp: float, mu_water_per_mm: float, *, water_correction: bool = True) -> None:
        kev, share = spectrum(kvp)
        reference = np.array([energy_of_water(mu_water_per_mm)])
        relative = [attenuation_per_mm(m, kev) / attenuation_per_mm(m, reference) for m in ("water", "bone")]
        self._share = torch.tensor(share, dtype=torch.float32)
        self._relative = torch.tensor(np.array(relative), dtype=torch.float32)
        self._mu_water = mu_water_per_mm
        self._bone_over_water = float(
            attenuation_per_mm("bone", reference)[0] / attenuation_per_mm("water", reference)[0]
        )
        self._powers = self._water_polynomial() if water_correction else torch.tensor([1.0])

    def taken_apart(self, hu: torch.Tensor) -> torch.Tensor:
        """Attenuation per mm of water and of bone at the reference energy, [2, ..] of HU [..]."""
        tissue = 1 + WATER_UP_TO_HU / 1000
        total = (1 + hu / 1000).clamp(min=0)
        bone_volume = ((total - tissue) / (self._bone_over_water - tissue)).clamp(0, 1)
        water = torch.where(bone_volume > 0, (1 - bone_volume) * tissue, total)
        return self._mu_water * torch.stack([water, total - water])

    def transmission(self, integrals: torch.Tensor) -> torch.Tensor:
        """Signal behind water and bone over that in air, [..] of line integrals at the reference energy [2, ..]."""
        result = torch.zeros_like(integrals[0])
        for share, water, bone in zip(self._share, *self._relative, strict=True):
            result += share * torch.exp(-(water * integrals[0] + bone * integrals[1]))
        return result

    def corrected(self, line_integral: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The line integral of the water that would have left this signal, and its derivative."""
        value, slope = torch.zeros_like(line_integral), torch.zeros_like(line_integral)
        for power, factor in reversed(list(enumerate(self._powers.tolist(), start=1))):
            value = value * line_integral + factor
            slope = slope * line_integral + power * factor
        return value * line_integral, slope

    def _water_polynomial(self) -> torch.Tensor:
        """Factors of p, p^2, ..: of equal relative error everywhere."""
        water = torch.linspace(0, _LONGEST_WATER, 400, dtype=torch.float32)[1:]
        measured = -torch.log(self.transmission(torch.stack([water, torch.zeros_like(water)]))).double().numpy()
        powers = measured[:, None] ** np.arange(1, _DEGREE + 1) / water.double().numpy()[:, None]
        factors, *_ = np.linalg.lstsq(powers, np.ones(len(powers)), rcond=None)
        return torch.tensor(factors)


def spectrum(kvp: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Energies in keV and the share of each in the signal without a body: [energies] each."""
    steps = round((kvp - _LEAST_KEV) / _ENERGY_STEP_KEV)
    edges = np.linspace(_LEAST_KEV, kvp, steps + 1)
    kev = (edges[1:] + edges[:-1]) / 2
    photons = (kvp - kev) / kev * np.exp(-_FILTER_MM * attenuation_per_mm("aluminium", kev))
    signal = photons * kev
    return kev, signal / signal.sum()
