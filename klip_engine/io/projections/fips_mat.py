"""Reads 2D fan-beam data of the Finnish Inverse Problems Society: `CtDataFull` or `CtDataLimited` in a MATLAB file.

The data of the Helsinki Tomography Challenge 2022 (Meaney et al., Zenodo 6984868): `sinogram` [angles, detectors]
of line integrals, `parameters` with distances in mm and angles in degrees. The authors' operator (HelTomo) makes of
them ASTRA's `fanflat` geometry: at angle a the source is at (sin a, -cos a), columns count along (cos a, sin a),
y upwards. An object on a stage has no patient coordinates: x stays x, y becomes -y here, so that pictures agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from klip_engine.errors import InputError, UsageError
from klip_engine.io.projections import hdf5
from klip_engine.io.projections.checks import check_detector, check_sweep, check_trajectory
from klip_engine.io.projections.circular import fan_circle
from klip_engine.io.projections.first_look import FirstLook
from klip_engine.io.projections.measured import line_integrals
from klip_engine.io.projections.options import ReadOptions
from klip_engine.projections import Detector, Projections, Trajectory
from klip_engine.words import install_extra

VARIABLES = ("CtDataFull", "CtDataLimited")
MU_WATER_PER_MM = 0.0192
_NUMBERS = ("angles", "distanceSourceOrigin", "distanceSourceDetector", "pixelSizePost", "numDetectorsPost")
_LARGEST_FILE = 2 * 2**30
_HALF_TURN = np.array([1.0, -1.0, 1.0])


def recognises(seen: FirstLook) -> bool:
    """A MATLAB file of version 5 or, with HDF5 inside, 7.3."""
    return seen.start.startswith((b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"))


def read(path: Path, options: ReadOptions) -> Projections:
    """Read one data set; `item` and `stack` of the options mean nothing here.

    Raises InputError for other content, missing parameters, wrong shapes, NaN and angles that turn back.
    """
    name, sinogram, numbers = _contents(path)
    angles = np.radians(numbers["angles"])
    source, detector_distance = (float(numbers[n][0]) for n in ("distanceSourceOrigin", "distanceSourceDetector"))
    bins = int(numbers["numDetectorsPost"][0])
    if sinogram.shape != (len(angles), bins):
        raise InputError(
            f"the sinogram of {path} is {list(sinogram.shape)}, but its parameters name {len(angles)} angles and "
            f"{bins} detectors"
        )
    if not 0 < source < detector_distance:
        raise InputError(
            f"{path} has the source {source:g} mm from the origin and {detector_distance:g} mm from the detector: "
            "the second must be larger, both above zero"
        )
    pitch = float(numbers["pixelSizePost"][0])
    detector = Detector("flat", bins, 1, pitch, pitch, ((bins - 1) / 2, 0.0))
    check_detector(detector, str(path))
    _, gaps = check_sweep(angles, str(path))
    trajectory = _y_downwards(fan_circle(angles, source, detector_distance))
    repeated = check_trajectory(trajectory, str(path))
    measured = line_integrals(sinogram[:, None, :].copy(), "line_integral", str(path))
    return Projections(
        line_integrals=measured.values,
        trajectory=trajectory,
        detector=detector,
        beam="fan",
        mu_water_per_mm=MU_WATER_PER_MM,
        weights=measured.weights,
        description={"format": "FIPS .mat", "file": path.name, "variable": name},
        notices=(
            *gaps,
            *repeated,
            *measured.notices,
            f"the file names no attenuation of water: {MU_WATER_PER_MM} per mm was assumed: HU are relative",
            "the file names no photon count: how far each ray can be trusted is unknown",
            "an object on a stage: left, right and front are those of the picture, not of a patient",
        ),
    )


def _y_downwards(trajectory: Trajectory) -> Trajectory:
    """The same scan with y mirrored: `fan_circle`'s formulas are ASTRA's, whose y points the other way."""
    source = trajectory.source_mm
    return Trajectory(
        trajectory.det_center_mm * _HALF_TURN,
        trajectory.det_u * _HALF_TURN,
        trajectory.det_v,
        None if source is None else source * _HALF_TURN,
    )


def _contents(path: Path) -> tuple[str, npt.NDArray[np.float32], dict[str, npt.NDArray[np.float64]]]:
    """The variable's name, the sinogram [angles, detectors], and the parameters as flat arrays."""
    if path.stat().st_size > _LARGEST_FILE:
        raise InputError(f"{path} is larger than the 2 GiB this program reads of a MATLAB file")
    with path.open("rb") as stream:
        is_hdf5 = stream.read(10) == b"MATLAB 7.3"
    name, sinogram, found = _from_hdf5(path) if is_hdf5 else _from_version_5(path)
    missing = [number for number in _NUMBERS if number not in found]
    if missing:
        raise InputError(f"{name}.parameters in {path} lack {', '.join(missing)}: without them no ray is known")
    numbers = {}
    for number in _NUMBERS:
        values = np.asarray(found[number])
        if values.dtype.kind not in "fiu" or values.size == 0 or not np.isfinite(values).all():
            raise InputError(f"{name}.parameters.{number} in {path} must be finite numbers")
        numbers[number] = values.astype(np.float64).ravel()
    if sinogram.ndim != 2 or sinogram.dtype.kind not in "fiu":
        raise InputError(f"{name}.sinogram in {path} is no array [angles, detectors] of numbers")
    return name, sinogram.astype(np.float32), numbers


def _from_version_5(path: Path) -> tuple[str, npt.NDArray[Any], Mapping[str, Any]]:
    """MATLAB version 5; scipy reads numbers and structures only, and no Python objects are made from the file."""
    try:
        from scipy.io import loadmat, whosmat
    except ImportError as error:
        raise UsageError(f"MATLAB files need scipy: {install_extra('projections')}") from error
    try:
        name = _variable([entry[0] for entry in whosmat(path)], path)
        content = loadmat(path, variable_names=[name], squeeze_me=False, struct_as_record=True)[name]
        sinogram, parameters = content["sinogram"][0, 0], content["parameters"][0, 0]
        return name, np.asarray(sinogram), {field: parameters[field][0, 0] for field in parameters.dtype.names}
    except InputError:
        raise
    except Exception as error:  # scipy raises what the damage happens to cause
        raise InputError(
            f"{path} cannot be read: it is damaged, truncated, or its {' or '.join(VARIABLES)} is no structure "
            "with sinogram and parameters"
        ) from error


def _from_hdf5(path: Path) -> tuple[str, npt.NDArray[Any], Mapping[str, Any]]:
    """MATLAB version 7.3: HDF5, in which MATLAB's arrays are stored with their axes reversed."""
    with hdf5.opened(path) as file:
        name = _variable(list(file), path)
        content = hdf5.group_of(file, name, path)
        parameters = None if content is None else hdf5.group_of(content, "parameters", path)
        sinogram = None if content is None else hdf5.array(content, "sinogram", path)
        if parameters is None or sinogram is None:
            raise InputError(f"{name} in {path} lacks sinogram or parameters")
        found = {number: hdf5.array(parameters, number, path) for number in _NUMBERS if number in parameters}
    return name, sinogram.T, found


def _variable(names: list[str], path: Path) -> str:
    for name in VARIABLES:
        if name in names:
            return name
    raise InputError(f"{path} holds neither {' nor '.join(VARIABLES)}: no FIPS projection data")
