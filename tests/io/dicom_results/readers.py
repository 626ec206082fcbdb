"""How other programs read the objects: dcmqi (what Slicer calls), highdicom, and where their voxels lie."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from klip_engine.volume import Geometry


def dcmqi(program: str, file: Path, out: Path) -> Path:
    """Run a converter of dcmqi into a new folder."""
    out.mkdir(parents=True)
    result = subprocess.run(
        [_program(program), "--inputDICOM", str(file), "--outputDirectory", str(out), "--outputType", "nrrd"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return out


def dcmqi_report(file: Path, out: Path) -> dict[str, Any]:
    """A TID 1500 report as dcmqi understands it."""
    result = subprocess.run(
        [_program("tid1500reader"), "--inputDICOM", str(file), "--outputMetadata", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    document: dict[str, Any] = json.loads(out.read_text())
    return document


def voxels_at(image: sitk.Image, geometry: Geometry) -> np.ndarray:
    """Values of an image at the voxel centres of a geometry, [z, y, x]; 0 outside of it."""
    resampled = sitk.Resample(image, geometry.empty_image(), sitk.Transform(), sitk.sitkNearestNeighbor)
    return sitk.GetArrayFromImage(resampled)


def volume_at(array: np.ndarray, affine: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The same for an array [slice, row, column] with a matrix from its index to LPS mm, voxel by voxel."""
    places = geometry.to_lps(np.argwhere(np.ones(geometry.size[::-1], dtype=bool))[:, ::-1])
    index = (places - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    nearest = np.rint(index).astype(int)
    inside = ((nearest >= 0) & (nearest < array.shape)).all(axis=1)
    assert np.abs(index - nearest)[inside].max() < 0.01
    values = np.zeros(len(places), dtype=array.dtype)
    values[inside] = array[tuple(nearest[inside].T)]
    return values.reshape(geometry.size[::-1])


def _program(name: str) -> str:
    beside = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if beside is None:
        pytest.skip(f"needs {name} of dcmqi (pip install dcmqi), which is not here")
    return beside
