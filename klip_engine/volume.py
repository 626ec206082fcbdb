"""CT volumes in patient coordinates.

Everything is LPS in millimetres (DICOM PS3.3 C.7.6.2.1.1): +x to the patient's left, +y to the back, +z to
the head. Arrays are [z, y, x]; `spacing`, `origin` and the columns of `direction` follow SimpleITK's (x, y, z).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from klip_engine.errors import InputError

AIR_HU = -1000.0
_AXIAL_TOLERANCE = 0.25
"""Axial slices may lean by this share of their distance across the picture."""

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of an array [z, y, x] lie in the patient, as SimpleITK describes it.

    size: voxels along (x, y, z); spacing: mm; origin: LPS mm of the centre of voxel (0, 0, 0);
    direction: 3 x 3 row-major, column k is the LPS unit vector of array axis k in (x, y, z) order.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """4 x 4 matrix from voxel index (i, j, k) to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.asarray(self.direction).reshape(3, 3) * np.asarray(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    def to_lps(self, index: Sequence[float] | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """LPS mm of one voxel index (i, j, k) or of an array of them [..., 3]."""
        points: npt.NDArray[np.float64] = np.asarray(index, dtype=np.float64)
        return points @ self.matrix[:3, :3].T + self.matrix[:3, 3]

    def to_index(self, lps: Sequence[float] | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Continuous voxel index (i, j, k) of one LPS point in mm or of an array of them [..., 3]."""
        points: npt.NDArray[np.float64] = np.asarray(lps, dtype=np.float64)
        return (points - self.matrix[:3, 3]) @ np.linalg.inv(self.matrix[:3, :3]).T

    @property
    def slice_normal(self) -> npt.NDArray[np.float64]:
        """LPS unit vector from one slice (array axis 0) to the next."""
        return np.asarray(self.direction).reshape(3, 3)[:, 2]

    @property
    def is_axial(self) -> bool:
        """True when the slices are axial: across the picture they lean by less than a quarter of their distance."""
        in_plane = self.matrix[2, :2] * np.asarray(self.size[:2])
        return bool(np.abs(in_plane).max() < _AXIAL_TOLERANCE * self.spacing[2])

    def empty_image(self) -> sitk.Image:
        """A one-byte SimpleITK image with this geometry, to be used as a resampling reference."""
        image = sitk.Image([int(n) for n in self.size], sitk.sitkUInt8)
        self.stamp(image)
        return image

    def stamp(self, image: sitk.Image) -> None:
        """Write spacing, origin and direction onto a SimpleITK image."""
        image.SetSpacing([float(v) for v in self.spacing])
        image.SetOrigin([float(v) for v in self.origin])
        image.SetDirection([float(v) for v in self.direction])

    def image(self, array: npt.NDArray[Any]) -> sitk.Image:
        """A SimpleITK image of an array [z, y, x] that lies on this geometry."""
        image = sitk.GetImageFromArray(array)
        self.stamp(image)
        return image

    @staticmethod
    def of(image: sitk.Image | sitk.ImageFileReader) -> Geometry:
        """The geometry of a 3D SimpleITK image, or of a reader that has read its header."""
        size, spacing, origin = image.GetSize(), image.GetSpacing(), image.GetOrigin()
        return Geometry(
            (size[0], size[1], size[2]),
            (spacing[0], spacing[1], spacing[2]),
            (origin[0], origin[1], origin[2]),
            tuple(image.GetDirection()),
        )


@dataclass(frozen=True)
class CTVolume:
    """A CT volume: Hounsfield units [z, y, x] float32 and where they lie in the patient."""

    hu: FloatArray
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or self.hu.shape != self.geometry.size[::-1]:
            raise InputError(
                f"the volume's array {self.hu.shape} does not match its geometry {self.geometry.size[::-1]}"
            )

    @staticmethod
    def from_image(image: sitk.Image) -> CTVolume:
        """A volume from a 3D SimpleITK image in HU."""
        return CTVolume(sitk.GetArrayFromImage(image).astype(np.float32, copy=False), Geometry.of(image))


def slice_means(hu: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Mean of each slice of HU [z, y, x], summed in double precision."""
    return np.asarray([plane.mean(dtype=np.float64) for plane in hu])
