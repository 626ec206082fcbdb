"""How strongly water, bone and aluminium attenuate X-rays of each energy.

Mass attenuation coefficients of Hubbell and Seltzer, "Tables of X-Ray Mass Attenuation Coefficients and Mass
Energy-Absorption Coefficients", NIST Standard Reference Database 126 (public domain), with coherent scattering:
table 3 (aluminium) and 4 (liquid water; cortical bone of ICRU-44). None of them has an absorption edge here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Energies = npt.NDArray[np.float64]

_KEV = (10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)
_CM2_PER_G = {
    "water": (5.329, 1.673, 0.8096, 0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505),
    "bone": (28.51, 9.032, 4.001, 1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480),
    "aluminium": (26.23, 7.955, 3.441, 1.128, 0.5685, 0.3681, 0.2778, 0.2018, 0.1704, 0.1378),
}
_G_PER_CM3 = {"water": 1.0, "bone": 1.92, "aluminium": 2.699}


def attenuation_per_mm(material: str, kev: Energies) -> Energies:
    """Linear attenuation at energies from 10 to 150 keV, interpolated in the logarithms of both."""
    logarithm = np.interp(np.log(kev), np.log(_KEV), np.log(_CM2_PER_G[material]))
    result: Energies = np.exp(logarithm) * _G_PER_CM3[material] / 10
    return result


def energy_of_water(mu_per_mm: float) -> float:
    """The energy in keV at which water attenuates by this much."""
    table = attenuation_per_mm("water", np.array(_KEV))
    return float(np.exp(np.interp(-np.log(mu_per_mm), -np.log(table), np.log(_KEV))))
