"""The object in the simulated scanner: a volume on an axial grid along the patient, finer than working grids."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from klip_engine.body import BODY_THRESHOLD_HU
from klip_engine.errors import UsageError
from klip_engine.simulation.room import refuse_what_has_no_room
from klip_engine.simulation.settings import SimulationSettings
from klip_engine.volume import AIR_HU, CTVolume, FloatArray, Geometry

_SAME = 1e-4


@dataclass(frozen=True)
class ScannedVolume:
    """A volume with square pixels along LPS x, y and slices along z; heights_mm: LPS z of the measured slices,
    each `thickness_mm` thick and made of `planes` planes."""

    volume: CTVolume
    heights_mm: tuple[float, ...]
    thickness_mm: float
    planes: int

    @property
    def isocentre_mm(self) -> tuple[float, float]:
        """LPS x and y of the axis of rotation: the middle of the volume."""
        geometry = self.volume.geometry
        middle = geometry.to_lps(((geometry.size[0] - 1) / 2, (geometry.size[1] - 1) / 2, 0))
        return float(middle[0]), float(middle[1])

    @property
    def body_radius_mm(self) -> float:
        """How far from the axis there is anything denser than `BODY_THRESHOLD_HU`: body, table, arms."""
        dense = (self.volume.hu > BODY_THRESHOLD_HU).any(axis=0)
        if not dense.any():
            raise UsageError("the volume holds nothing denser than lung: there is no body to simulate a scan of")
        y, x = np.nonzero(dense)
        rows, columns = dense.shape
        radius = np.hypot(y - (rows - 1) / 2, x - (columns - 1) / 2).max()
        return float(radius + 0.5) * self.volume.geometry.spacing[0]

    def planes_of(self, number: int) -> FloatArray:
        """HU [plane, y, x] through the thickness of a measured slice, linear between the volume's slices."""
        offsets = (np.arange(self.planes) - (self.planes - 1) / 2) / self.planes * self.thickness_mm
        return np.stack([self.plane(self.heights_mm[number] + offset) for offset in offsets])

    def plane(self, z_mm: float) -> FloatArray:
        """HU [y, x] at an LPS height, linear between slices; beyond the volume its last slice."""
        geometry, hu = self.volume.geometry, self.volume.hu
        place = float(np.clip((z_mm - geometry.origin[2]) / geometry.spacing[2], 0, len(hu) - 1))
        below = min(int(place + _SAME), len(hu) - 1)
        share = np.float32(place - below)
        if share < _SAME:
            return hu[below]
        plane: FloatArray = (1 - share) * hu[below] + share * hu[below + 1]
        return plane


def scanned_volume(volume: CTVolume, settings: SimulationSettings) -> ScannedVolume:
    """The volume as the simulated scanner meets it.

    A volume that lies along LPS with square pixels no larger than `pixel_mm` is taken as it is, every other one is
    interpolated linearly, with pixels divided or at least as fine. Raises UsageError for slices that are not there.
    """
    axial = volume if _fits(volume.geometry, settings.pixel_mm) else _resampled(volume, settings.pixel_mm)
    geometry = axial.geometry
    first, last = settings.slices or (0, geometry.size[2])
    if last > geometry.size[2]:
        raise UsageError(f"the volume has {geometry.size[2]} axial slices, not {last}; ask for fewer")
    spacing, bottom = geometry.spacing[2], geometry.origin[2]
    if settings.slice_mm is None:
        return ScannedVolume(axial, tuple(bottom + spacing * i for i in range(first, last)), spacing, 1)
    count = math.floor((last - first) * spacing / settings.slice_mm + _SAME)
    if count < 1:
        raise UsageError(
            f"the chosen slices are {(last - first) * spacing:g} mm high in all, less than one of "
            f"{settings.slice_mm:g} mm; ask for thinner ones"
        )
    planes = max(1, math.ceil(settings.slice_mm / spacing - _SAME))
    pixels = geometry.size[0] * geometry.size[1]
    refuse_what_has_no_room("the measured slices", count * planes * pixels, "give a larger --slice-mm")
    start = bottom + (first - 0.5) * spacing
    heights = tuple(start + (i + 0.5) * settings.slice_mm for i in range(count))
    return ScannedVolume(axial, heights, settings.slice_mm, planes)


def _fits(geometry: Geometry, pixel_mm: float) -> bool:
    x, y, _ = geometry.spacing
    along = np.allclose(np.reshape(geometry.direction, (3, 3)), np.eye(3), atol=_SAME)
    return along and abs(x - y) < _SAME * x and x <= pixel_mm * (1 + _SAME)


def _resampled(volume: CTVolume, pixel_mm: float) -> CTVolume:
    grid = _axial_grid(volume.geometry, pixel_mm)
    source = volume.geometry.image(volume.hu)
    image = sitk.Resample(source, grid.empty_image(), sitk.Transform(), sitk.sitkLinear, AIR_HU, sitk.sitkFloat32)
    return CTVolume(sitk.GetArrayFromImage(image), grid)


def _axial_grid(geometry: Geometry, pixel_mm: float) -> Geometry:
    """The box of the volume along LPS, its pixels divided into equal parts no larger than `pixel_mm`."""
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * np.array(geometry.size) - 0.5
    box = geometry.to_lps(corners)
    low, extent = box.min(axis=0), np.ptp(box, axis=0)
    axes = np.abs(np.reshape(geometry.direction, (3, 3)))
    # The spacing of the array axis that runs most along each of x, y and z.
    spacing = [geometry.spacing[int(np.argmax(axes[axis]))] for axis in range(3)]
    own = min(spacing[0], spacing[1])
    pixel = own / math.ceil(own / pixel_mm - _SAME)
    step = np.array([pixel, pixel, spacing[2]])
    size = np.maximum(1, np.ceil(extent / step - _SAME))
    refuse_what_has_no_room("the volume with divided pixels", float(size.prod()), "give a larger --pixel-mm")
    origin = low + extent / 2 - (size - 1) / 2 * step
    return Geometry(
        (int(size[0]), int(size[1]), int(size[2])),
        (pixel, pixel, spacing[2]),
        (float(origin[0]), float(origin[1]), float(origin[2])),
    )
