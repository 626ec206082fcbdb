"""Beam hardening: water is flat after the correction and cups without, bone leaves a dark band."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from klip_engine.scans import reconstruct, to_slices
from klip_engine.simulation import simulate
from klip_engine.simulation.materials import attenuation_per_mm, energy_of_water
from klip_engine.simulation.polychromatic import ManyEnergies, spectrum
from klip_engine.volume import AIR_HU, CTVolume, Geometry
from tests.simulation.conftest import small

PIXEL, SIDE = 2.5, 112


def disc(x_mm, y_mm, radius_mm):
    y, x = (np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2) * PIXEL
    return (x - x_mm) ** 2 + (y - y_mm) ** 2 < radius_mm**2


def water_cylinder():
    hu = np.full((1, SIDE, SIDE), AIR_HU, dtype=np.float32)
    hu[0][disc(0, 0, 125)] = 0
    return hu


def seen(hu, **settings):
    """The reconstruction of one slice, HU [y, x]."""
    volume = CTVolume(hu, Geometry((SIDE, SIDE, 1), (PIXEL, PIXEL, 3.0)))
    scanner = {"views": 90, "detector_bins": 138, "bin_mm": 4.0, "pixel_mm": PIXEL}
    return reconstruct(to_slices(simulate(volume, small(**scanner, **settings)))).hu[0]


def test_water_is_flat_after_the_correction_and_cups_without():
    corrected, cupped = (seen(water_cylinder(), kvp=120.0, water_correction=on) for on in (True, False))
    places = [disc(0, 0, 15), disc(60, 0, 12), disc(0, -95, 10)]
    flat = [float(corrected[place].mean()) for place in places]
    assert max(map(abs, flat)) < 5
    assert max(flat) - min(flat) < 6
    cup = [float(cupped[place].mean()) for place in places]
    assert cup[0] + 3 < cup[1] < cup[2] - 3
    assert cup[2] - cup[0] > 15


def test_between_two_bones_it_is_dark():
    hu = water_cylinder()
    for x in (-60, 60):
        hu[0][disc(x, 0, 18)] = 1200
    one_energy, many = seen(hu), seen(hu, kvp=120.0)
    between, elsewhere = disc(0, 0, 12), disc(0, 80, 12)
    assert abs(float(one_energy[between].mean())) < 3
    assert float(many[between].mean()) < float(many[elsewhere].mean()) - 10


def test_the_tube_is_like_that_of_a_ct_scanner():
    """Half-value layer of air kerma (mu_en of air: NIST SRD 126) about 7 mm of aluminium at 120 kV."""
    kev, signal = spectrum(120.0)
    table = [10, 15, 20, 30, 40, 50, 60, 80, 100, 150]
    air = [4.742, 1.334, 0.5389, 0.1537, 0.06833, 0.04098, 0.03041, 0.02407, 0.02325, 0.02496]
    kerma = signal * np.exp(np.interp(np.log(kev), np.log(table), np.log(air)))
    left = (kerma * np.exp(-7.0 * attenuation_per_mm("aluminium", kev))).sum() / kerma.sum()
    assert left == pytest.approx(0.5, abs=0.02)
    assert kev.min() > 10
    assert kev.max() < 120
    assert spectrum(80.0)[0].mean() < kev.mean()


def test_attenuation_between_the_tabulated_energies():
    # NIST XCOM at 70 keV: water 0.1930, aluminium 0.2295 cm2/g, interpolated here within 1 %.
    assert attenuation_per_mm("water", np.array([70.0]))[0] == pytest.approx(0.01930, rel=0.01)
    assert attenuation_per_mm("bone", np.array([60.0]))[0] == pytest.approx(0.3148 * 1.92 / 10)
    assert 65 < energy_of_water(0.0192) < 75


@pytest.mark.parametrize("kvp", [80.0, 120.0, 140.0])
def test_the_correction_inverts_water(kvp):
    beam = ManyEnergies(kvp, 0.0192)
    water = torch.linspace(0.05, 10, 60)
    measured = -torch.log(beam.transmission(torch.stack([water, 0 * water])))
    corrected, slope = beam.corrected(measured)
    assert float((corrected / water - 1).abs().max()) < 2e-3
    step = 1e-3
    numerical = (beam.corrected(measured + step)[0] - beam.corrected(measured - step)[0]) / (2 * step)
    assert torch.allclose(slope, numerical, rtol=1e-2)
    assert bool((beam.corrected(torch.linspace(-0.2, 9, 300))[1] > 0).all())


def test_the_spectrum_is_fine_enough():
    """Against the same integral in steps of a sixth, through 200 mm of water and 30 mm of bone."""
    beam = ManyEnergies(120.0, 0.0192)
    kev = np.linspace(16, 120, 2081)
    kev = (kev[1:] + kev[:-1]) / 2
    share = (120 - kev) * np.exp(-10 * attenuation_per_mm("aluminium", kev))
    path = 200 * attenuation_per_mm("water", kev) + 30 * attenuation_per_mm("bone", kev)
    exact = -math.log((share * np.exp(-path)).sum() / share.sum())
    at = np.array([energy_of_water(0.0192)])
    integrals = torch.tensor([200 * attenuation_per_mm("water", at)[0], 30 * attenuation_per_mm("bone", at)[0]])
    assert -math.log(beam.transmission(integrals[:, None].float())[0]) == pytest.approx(exact, rel=2e-3)


def test_materials_together_attenuate_as_the_hu_say():
    beam = ManyEnergies(120.0, 0.0192)
    hu = torch.tensor([-1500.0, -1000.0, -50.0, 100.0, 101.0, 700.0, 1600.0, 3000.0])
    water, bone = beam.taken_apart(hu)
    assert torch.allclose(water + bone, 0.0192 * (1 + hu / 1000).clamp(min=0))
    assert bone[:4].abs().max() == 0
    assert float(water[-1]) == 0
    assert bool((water >= 0).all())
    assert bool((bone >= 0).all())
