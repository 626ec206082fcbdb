"""Small bodies and small scanners."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from klip_engine.simulation import SimulationSettings
from klip_engine.volume import AIR_HU, CTVolume, Geometry

PIXEL_MM = 4.0
SIDE = 64
SMALL = {
    "views": 60,
    "detector_bins": 100,
    "sub_rays": 1,
    "pixel_mm": PIXEL_MM,
    "dose": "none",
}


def small(**settings) -> SimulationSettings:
    """A coarse scanner without noise that sees 280 mm."""
    geometry = settings.get("geometry", "fan-curved")
    return SimulationSettings(**{**SMALL, "bin_mm": 2.8 if geometry == "parallel" else 5.1, **settings})


def body(slices: int = 3, *, origin=(-100.0, -120.0, 40.0), slice_mm: float = 5.0) -> CTVolume:
    """An ellipse of water with a bone to the patient's left, a cavity in front, and a dense spot that moves along
    z: nothing a flip or turn maps onto itself."""
    y, x = np.mgrid[:SIDE, :SIDE] * PIXEL_MM - (SIDE - 1) / 2 * PIXEL_MM
    hu = np.full((slices, SIDE, SIDE), AIR_HU, dtype=np.float32)
    for z in range(slices):
        hu[z][(x / 95) ** 2 + (y / 70) ** 2 < 1] = 0
        hu[z][(x - 45) ** 2 + (y - 10) ** 2 < 15**2] = 600
        hu[z][(x + 10) ** 2 + (y + 35) ** 2 < 18**2] = -800
        hu[z][(x + 50 - 10 * z) ** 2 + (y - 25) ** 2 < 9**2] = 300
    return CTVolume(hu, Geometry((SIDE, SIDE, slices), (PIXEL_MM, PIXEL_MM, slice_mm), origin))


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
