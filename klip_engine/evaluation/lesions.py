"""Kinds of synthetic lesion. A new kind is one class and one line in `LESION_KINDS`."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from klip_engine.errors import UsageError
from klip_engine.evaluation.metal import metal_streaks
from klip_engine.evaluation.placement import Diameters, Place, place_in_tissue, place_on_dependent_wall
from klip_engine.evaluation.shapes import Box, Crescent, Ellipsoid, Relief, Shape, StarPrism
from klip_engine.evaluation.tissue import LUNG_HU, ORGAN_MAX_STD_HU, Room, Tissues, smooth_in_slice
from klip_engine.volume import AIR_HU, BoolArray, CTVolume, FloatArray, Geometry


class LesionKind(Protocol):
    """What a kind of lesion looks like and where it may lie; all chance comes from the generator given."""

    def room(self, tissues: Tissues) -> Room:
        """Where a lesion may lie."""

    def tissue(self, volume: CTVolume) -> BoolArray:
        """Mask [z, y, x] of where a lesion may lie in this volume."""

    def shape(self, diameters_mm: Diameters, wall_mm: Relief = ()) -> Shape:
        """The solid of that size; wall_mm: what fluid lies on."""

    def place(
        self,
        diameters_mm: Diameters,
        axes: npt.NDArray[np.float64],
        volume: CTVolume,
        room: Room,
        rng: np.random.Generator,
    ) -> Place | None:
        """A random place in the room that fits it, or None."""

    def draw_diameters(self, rng: np.random.Generator) -> Diameters:
        """A size in mm along the shape's axes."""

    def draw_axes(self, rng: np.random.Generator, geometry: Geometry) -> npt.NDArray[np.float64]:
        """An orientation: 3 x 3, column k is the LPS unit vector of the shape's axis k."""

    def draw_contrast(self, rng: np.random.Generator, background_hu: float) -> float:
        """HU that the lesion differs from the tissue around it, whose median is `background_hu`."""

    def blend(self, around: CTVolume, weight: FloatArray, contrast_hu: float, background_hu: float) -> FloatArray:
        """HU [z, y, x] of the lesion's surroundings with the lesion in it.

        around: the part of the volume around the lesion; weight: its share of each voxel, 0..1.
        """

    def spoil(
        self, hu: FloatArray, before: CTVolume, box: Box, weight: FloatArray, rng: np.random.Generator
    ) -> None:
        """Change, in place, what the lesion does to the picture beyond itself; `hu` holds the lesion already."""


class _Lesion:
    """A lesion that changes nothing beyond itself."""

    def room(self, tissues: Tissues) -> Room:
        """Where a lesion may lie."""
        raise NotImplementedError

    def tissue(self, volume: CTVolume) -> BoolArray:
        """The mask of its room."""
        return self.room(Tissues(volume)).mask

    def spoil(
        self, hu: FloatArray, before: CTVolume, box: Box, weight: FloatArray, rng: np.random.Generator
    ) -> None:
        """Nothing."""


class _Solid(_Lesion):
    """A lesion that lies in one tissue."""

    tolerance = 0.0
    """Share of the lesion that may lie outside its tissue."""
    max_std_hu = ORGAN_MAX_STD_HU
    """Largest standard deviation of the tissue under the lesion once its noise is smoothed away."""

    def shape(self, diameters_mm: Diameters, wall_mm: Relief = ()) -> Shape:
        """An ellipsoid."""
        return Ellipsoid(diameters_mm)

    def place(
        self,
        diameters_mm: Diameters,
        axes: npt.NDArray[np.float64],
        volume: CTVolume,
        room: Room,
        rng: np.random.Generator,
    ) -> Place | None:
        """Inside the tissue, never across an edge."""
        return place_in_tissue(
            self.shape(diameters_mm),
            axes,
            volume,
            room,
            rng,
            tolerance=self.tolerance,
            max_std_hu=self.max_std_hu,
        )

    def draw_axes(self, rng: np.random.Generator, geometry: Geometry) -> npt.NDArray[np.float64]:
        """Any orientation."""
        return _random_rotation(rng)

    def blend(self, around: CTVolume, weight: FloatArray, contrast_hu: float, background_hu: float) -> FloatArray:
        """The tissue's own values plus the contrast."""
        return around.hu + np.float32(contrast_hu) * weight


class Tumor(_Solid):
    """A faint ellipsoid in a homogeneous organ: 12 to 30 mm, 40 to 80 HU below or above it."""

    def room(self, tissues: Tissues) -> Room:
        """Homogeneous organs."""
        return tissues.organ

    def draw_diameters(self, rng: np.random.Generator) -> Diameters:
        """Three diameters within 20 % of each other, all in 12..30 mm."""
        return _near_sphere(rng, 12.0, 30.0, roundness=0.8)

    def draw_contrast(self, rng: np.random.Generator, background_hu: float) -> float:
        """-60 or +60 HU, each by up to 20 HU more or less."""
        return float(rng.choice((-1.0, 1.0)) * rng.uniform(40.0, 80.0))


class Nodule(_Solid):
    """A solid nodule in the lung: 6 to 20 mm, about 30 HU."""

    tolerance = 0.03
    max_std_hu = math.inf
    DENSITY_HU = 30.0
    DENSITY_SPREAD_HU = 20.0

    def room(self, tissues: Tissues) -> Room:
        """Lungs with the vessels inside them."""
        return tissues.lung

    def draw_diameters(self, rng: np.random.Generator) -> Diameters:
        """Three diameters within 15 % of each other, all in 6..20 mm."""
        return _near_sphere(rng, 6.0, 20.0, roundness=0.85)

    def draw_contrast(self, rng: np.random.Generator, background_hu: float) -> float:
        """What is missing to 30 HU, by up to 20 HU more or less."""
        spread = self.DENSITY_SPREAD_HU
        return float(self.DENSITY_HU + rng.uniform(-spread, spread) - background_hu)

    def blend(self, around: CTVolume, weight: FloatArray, contrast_hu: float, background_hu: float) -> FloatArray:
        """The nodule's density in place of the lung's local mean, under the lung's own fine texture."""
        texture = _lung_texture(around)
        return around.hu + weight * (np.float32(background_hu + contrast_hu) + texture - around.hu)


class Star(_Solid):
    """The published study's artefact: a five-pointed star in the slice plane, 20 to 40 mm, +300 HU."""

    CONTRAST_HU = 300.0

    def room(self, tissues: Tissues) -> Room:
        """Homogeneous organs."""
        return tissues.organ

    def shape(self, diameters_mm: Diameters, wall_mm: Relief = ()) -> Shape:
        """A star of that width, height and thickness."""
        return StarPrism(diameters_mm)

    def draw_diameters(self, rng: np.random.Generator) -> Diameters:
        """A regular star 20..40 mm across, a quarter to half as thick."""
        width = float(rng.uniform(20.0, 40.0))
        return width, width, width * float(rng.uniform(0.25, 0.5))

    def draw_axes(self, rng: np.random.Generator, geometry: Geometry) -> npt.NDArray[np.float64]:
        """In the plane of the slices, turned by any angle."""
        angle = rng.uniform(0.0, 2 * np.pi)
        turn = np.array(
            [[np.cos(angle), -np.sin(angle), 0.0], [np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]]
        )
        return np.asarray(geometry.direction).reshape(3, 3) @ turn

    def draw_contrast(self, rng: np.random.Generator, background_hu: float) -> float:
        """Always +300 HU."""
        return self.CONTRAST_HU


class Effusion(_Lesion):
    """Fluid in the pleural space: a crescent on the back wall of a lung, 8 to 25 mm thick, 0 to 20 HU."""

    def room(self, tissues: Tissues) -> Room:
        """Lungs, up to their wall."""
        return tissues.lung_to_wall

    def shape(self, diameters_mm: Diameters, wall_mm: Relief = ()) -> Shape:
        """A layer as wide, thick and long as that, on the wall."""
        return Crescent(diameters_mm, wall_mm)

    def place(
        self,
        diameters_mm: Diameters,
        axes: npt.NDArray[np.float64],
        volume: CTVolume,
        room: Room,
        rng: np.random.Generator,
    ) -> Place | None:
        """On the lowest wall of a lung of a patient lying on the back."""
        return place_on_dependent_wall(diameters_mm, axes, volume, room, rng)

    def draw_diameters(self, rng: np.random.Generator) -> Diameters:
        """50..110 mm wide, 8..25 mm thick, 30..80 mm long."""
        thickness = float(rng.uniform(8.0, 25.0))
        width = float(np.clip(thickness * rng.uniform(3.5, 6.0), 50.0, 110.0))
        return width, thickness, float(rng.uniform(30.0, 80.0))

    def draw_axes(self, rng: np.random.Generator, geometry: Geometry) -> npt.NDArray[np.float64]:
        """Across, back and up the patient: fluid goes where gravity pulls it."""
        return np.eye(3)

    def draw_contrast(self, rng: np.random.Generator, background_hu: float) -> float:
        """What is missing to 0..20 HU."""
        return float(rng.uniform(0.0, 20.0) - background_hu)

    def blend(self, around: CTVolume, weight: FloatArray, contrast_hu: float, background_hu: float) -> FloatArray:
        """Fluid in place of whatever is thinner than it, under the lung's own fine texture."""
        fluid = np.float32(background_hu + contrast_hu)
        return around.hu + weight * np.maximum(fluid + _lung_texture(around) - around.hu, 0)


class Metal(_Solid):
    """A clip or a seed: 3 to 8 mm of metal in soft tissue, +2000 HU, and its streaks over the slice."""

    CONTRAST_HU = 2000.0

    def room(self, tissues: Tissues) -> Room:
        """Organs and muscle."""
        return tissues.soft

    def draw_diameters(self, rng: np.random.Generator) -> Diameters:
        """Three diameters within 25 % of each other, all in 3..8 mm."""
        return _near_sphere(rng, 3.0, 8.0, roundness=0.75)

    def draw_contrast(self, rng: np.random.Generator, background_hu: float) -> float:
        """Always +2000 HU."""
        return self.CONTRAST_HU

    def spoil(
        self, hu: FloatArray, before: CTVolume, box: Box, weight: FloatArray, rng: np.random.Generator
    ) -> None:
        """Add the streaks to every slice that the metal touches."""
        slices = box[0]
        share = np.zeros((slices.stop - slices.start, *hu.shape[1:]), dtype=np.float32)
        share[:, box[1], box[2]] = weight
        spacing_x, spacing_y, _ = before.geometry.spacing
        streaks = metal_streaks(before.hu[slices], share, (spacing_x, spacing_y), rng)
        hu[slices] = np.where(streaks == 0, hu[slices], np.maximum(hu[slices] + streaks, AIR_HU))


LESION_KINDS: dict[str, LesionKind] = {
    "tumor": Tumor(),
    "nodule": Nodule(),
    "star": Star(),
    "effusion": Effusion(),
    "metal": Metal(),
}


def lesion_kind(name: str) -> LesionKind:
    """The kind of that name; raises UsageError when there is none."""
    if name not in LESION_KINDS:
        raise UsageError(f"Unknown lesion kind {name!r}; it is one of {', '.join(LESION_KINDS)}.")
    return LESION_KINDS[name]


_TEXTURE_MEAN_MM = 3.0
"""Gaussian of the lung's local mean; what is finer counts as texture."""
_TEXTURE_LIMIT_HU = 50.0
"""Noise of a CT stays below it; stronger deviations are vessels and lobules, which a nodule replaces."""


def _lung_texture(around: CTVolume) -> FloatArray:
    """Deviations of the lung from its local mean (HU), without vessels and whatever is no lung."""
    airy = (around.hu < LUNG_HU[1]).astype(np.float32)
    if not airy.any():
        return np.zeros_like(around.hu)
    share = smooth_in_slice(around, airy, _TEXTURE_MEAN_MM)
    local_mean = smooth_in_slice(around, around.hu * airy, _TEXTURE_MEAN_MM) / np.maximum(share, 1e-3)
    deviation = np.where(share > 0.1, around.hu - local_mean, 0).astype(np.float32)
    return np.clip(deviation, -_TEXTURE_LIMIT_HU, _TEXTURE_LIMIT_HU)


def _near_sphere(rng: np.random.Generator, smallest: float, largest: float, *, roundness: float) -> Diameters:
    longest = float(rng.uniform(smallest / roundness, largest))
    return longest, longest * float(rng.uniform(roundness, 1)), longest * float(rng.uniform(roundness, 1))


def _random_rotation(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A rotation matrix, uniform over all orientations: the Q of a Gaussian matrix with R's signs fixed."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))
