"""Streaks of a small metal object: what a scanner's reconstruction makes of the rays that cross it.

De Man, Nuyts, Dupont, Marchal and Suetens, "Metal streak artifacts in X-ray computed tomography: a simulation
study", IEEE Trans. Nucl. Sci. 46(3), 1999, 691-696: beam hardening and photon noise of the few rays through the
metal are the main causes. Both are errors of those rays' line integrals; filtered back-projection, being linear,
turns them into an image of its own that is added to the slice.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch

from klip_engine.operators import CTOperator, ParallelGeometry, TransmissionNoise
from klip_engine.volume import AIR_HU, FloatArray

Floats = npt.NDArray[np.float64]

ENERGIES_KEV = (50, 60, 80, 100)
SPECTRUM = np.array([0.25, 0.30, 0.28, 0.17])
"""Share of the detected photons at each energy, about that of a filtered 120 kVp beam."""
WATER_PER_MM = np.array([0.2269, 0.2059, 0.1837, 0.1707]) / 10
IRON_PER_MM = np.array([1.958, 1.205, 0.5952, 0.3717]) * 7.874 / 10
"""Attenuation: Hubbell and Seltzer, NISTIR 5632, tables 3 and 4 (cm2 / g) times the density."""
PHOTONS_PER_RAY = 2.5e5
LARGEST_LINE_INTEGRAL = 9.0

_VIEWS = 360
_PIXEL_MM = 1.5
_BIN_MM = 1.0


def metal_streaks(
    hu: FloatArray, share: FloatArray, spacing_mm: tuple[float, float], rng: np.random.Generator
) -> FloatArray:
    """What iron in the place of `share` adds to each slice outside the metal itself, in HU.

    hu: the slices without metal [slices, y, x]; share: of each voxel that is metal, 0..1, same shape;
    spacing_mm: along (x, y). The scan is simulated in the plane of the slices, with parallel beams.
    """
    used = np.flatnonzero(share.any(axis=(1, 2)))
    added = np.zeros_like(hu)
    if not used.size:
        return added
    rows, columns = (np.flatnonzero(share.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    centre = (columns.mean() * spacing_mm[0], rows.mean() * spacing_mm[1])
    width_mm = float(np.hypot(np.ptp(columns) * spacing_mm[0], np.ptp(rows) * spacing_mm[1])) + 4 * _PIXEL_MM
    grid = _SquareGrid.around(centre, (hu.shape[2], hu.shape[1]), spacing_mm)
    tissue = grid.take(np.maximum(hu[used], AIR_HU) / 1000 + 1, spacing_mm)
    metal = grid.take(share[used], spacing_mm)
    narrow, wide = grid.scans(width_mm)
    water_mm, iron_mm = (narrow.forward(torch.from_numpy(image)[:, None]).double() for image in (tissue, metal))
    errors = _line_integral_errors(water_mm.numpy(), iron_mm.numpy(), rng)
    padding = (wide.measurement_shape[1] - narrow.measurement_shape[1]) // 2
    sinogram = torch.from_numpy(np.pad(errors, ((0, 0), (0, 0), (padding, padding)))).float()
    images = 1000 * wide.pseudo_inverse(sinogram)[:, 0].numpy()
    added[used] = grid.give(images, hu.shape[1:], spacing_mm) * (1 - share[used])
    return added


def _line_integral_errors(water_mm: Floats, iron_mm: Floats, rng: np.random.Generator) -> Floats:
    """What is wrong with each ray, in mm of water, after the usual correction for the hardening by water.

    The part proportional to the iron is left out: it is the picture of the metal, not a streak.
    """
    ideal = _polychromatic(water_mm, iron_mm)
    expected, without = np.exp(-ideal), np.exp(-_polychromatic(water_mm, np.zeros_like(iron_mm)))
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    detector = TransmissionNoise(i0=PHOTONS_PER_RAY, largest_line_integral=LARGEST_LINE_INTEGRAL)
    counted = detector.apply(torch.from_numpy(ideal), generator).measurement.numpy()
    surplus = np.sqrt(np.clip(1 - expected / without, 0, 1))  # the slice has the noise of the tissue already
    measured = ideal + surplus * (counted - ideal)
    error = np.where(iron_mm > 0, _as_water(measured) - water_mm, 0)
    return error - iron_mm * (error * iron_mm).sum() / max(float(np.square(iron_mm).sum()), 1e-12)


def _polychromatic(water_mm: Floats, iron_mm: Floats) -> Floats:
    """-log of the share of photons that pass so much water and iron."""
    depth = water_mm[..., None] * WATER_PER_MM + iron_mm[..., None] * IRON_PER_MM
    return np.asarray(-np.log((SPECTRUM * np.exp(-depth)).sum(axis=-1)))


def _as_water(line_integral: Floats) -> Floats:
    """The water, in mm, that weakens the beam as much."""
    thickness = np.linspace(0, 1200, 2401)
    return np.interp(line_integral, _polychromatic(thickness, np.zeros_like(thickness)), thickness)


class _SquareGrid:
    """Square pixels centred on the metal, so that a detector a few bins wide sees it from every angle."""

    def __init__(self, centre_mm: tuple[float, float], pixels: int) -> None:
        self.pixels = pixels
        self._origin = [c - (pixels - 1) / 2 * _PIXEL_MM for c in centre_mm]

    @classmethod
    def around(
        cls, centre_mm: tuple[float, float], size: tuple[int, int], spacing_mm: tuple[float, float]
    ) -> _SquareGrid:
        """The grid that holds all of a slice of `size` (x, y) pixels."""
        reach = max(max(c, n * s - c) for c, n, s in zip(centre_mm, size, spacing_mm, strict=True))
        return cls(centre_mm, 2 * int(np.ceil(reach / _PIXEL_MM)) + 2)

    def scans(self, width_mm: float) -> tuple[CTOperator, CTOperator]:
        """A scan of the middle `width_mm` and one of the whole grid, bins in the same places."""
        narrow = 2 * int(np.ceil(width_mm / 2 / _BIN_MM)) + 1
        whole = max(narrow, 2 * int(np.ceil(self.pixels * _PIXEL_MM * 2**0.5 / 2 / _BIN_MM)) + 1)
        made = [
            CTOperator.for_grid(
                ParallelGeometry,
                (self.pixels, self.pixels),
                _PIXEL_MM,
                views=_VIEWS,
                detector_count=count,
                detector_pitch_mm=_BIN_MM,
                matrix_limit_bytes=1,  # every metal has another grid: nothing to keep
            )
            for count in (narrow, whole)
        ]
        return made[0], made[1]

    def take(self, slices: npt.NDArray[np.floating], spacing_mm: tuple[float, float]) -> FloatArray:
        """Slices [n, y, x] on this grid, 0 outside."""
        images = []
        for one in slices:
            image = sitk.GetImageFromArray(one.astype(np.float32))
            image.SetSpacing([float(s) for s in spacing_mm])
            images.append(self._resampled(image, [self.pixels] * 2, self._origin, [_PIXEL_MM] * 2))
        return np.stack(images)

    def give(self, slices: FloatArray, shape: tuple[int, ...], spacing_mm: tuple[float, float]) -> FloatArray:
        """Slices [n, y, x] of this grid on the volume's own."""
        images = []
        for one in slices:
            image = sitk.GetImageFromArray(one)
            image.SetOrigin(self._origin)
            image.SetSpacing([_PIXEL_MM] * 2)
            images.append(self._resampled(image, [shape[1], shape[0]], [0.0, 0.0], list(spacing_mm)))
        return np.stack(images)

    @staticmethod
    def _resampled(image: sitk.Image, size: list[int], origin: list[float], spacing: list[float]) -> FloatArray:
        resample = sitk.ResampleImageFilter()
        resample.SetSize([int(n) for n in size])
        resample.SetOutputOrigin([float(v) for v in origin])
        resample.SetOutputSpacing([float(v) for v in spacing])
        resample.SetInterpolator(sitk.sitkLinear)
        resample.SetDefaultPixelValue(0.0)
        return sitk.GetArrayFromImage(resample.Execute(image)).astype(np.float32)
