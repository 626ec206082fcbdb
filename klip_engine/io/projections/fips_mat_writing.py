"""Writes one slice of a flat fan as the Helsinki Tomography Challenge 2022 does: a MATLAB file, version 5.

A structure `CtDataFull` (of a whole turn) or `CtDataLimited` with the fields `fips_mat.py` reads and the further
ones that the authors' operator (HelTomo) and others' readers use.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from klip_engine.errors import InputError, UsageError
from klip_engine.files import replaced_file
from klip_engine.io.projections.checks import check_sweep
from klip_engine.io.projections.circular_scan import SAME_MM, CircularScan, cannot_hold, circular_scan
from klip_engine.io.projections.fips_mat import MU_WATER_PER_MM, VARIABLES
from klip_engine.io.projections.losses import losses, without_holes
from klip_engine.projections import Projections
from klip_engine.words import counted, install_extra

NAME = "FIPS .mat"


def write(path: Path, projections: Projections, provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Write the slice, complete or not at all; returns what the format does not keep.

    Raises UsageError for anything but one slice of a flat fan with the detector's middle opposite the source, and
    where scipy is not there or the path cannot be written.
    """
    check(path, projections)
    from scipy.io import savemat

    filled, holes = without_holes(projections, NAME)
    scan = _slice(filled)
    pitch, columns = projections.detector.column_pitch_mm, projections.detector.columns
    source, to_detector = float(scan.radius_mm.mean()), float(scan.distance_mm.mean())
    angles = _angles_deg(scan)
    content = {
        "type": "2D",
        # HelTomo's y points up and its columns run the other way around
        "sinogram": np.ascontiguousarray(scan.line_integrals[:, 0, ::-1], np.float64),
        "parameters": {
            "distanceSourceDetector": to_detector,
            "distanceSourceOrigin": source,
            "geometricMagnification": to_detector / source,
            "numDetectorsPost": float(columns),
            "pixelSizePost": pitch,
            "effectivePixelSizePost": pitch * source / to_detector,
            "angles": angles[None, :],
        },
    }
    full, limited = VARIABLES
    step = float(np.median(np.abs(np.diff(angles)))) if len(angles) > 1 else 0.0
    with replaced_file(Path(path)) as temporary, temporary.open("wb") as stream:
        name = full if np.ptp(angles) + step >= 360 - 1e-6 else limited
        savemat(stream, {name: content}, do_compression=True)
    height = abs(float(scan.z_mm.mean())) > SAME_MM
    return (
        *(("FIPS .mat has no place for the height of the slice: not kept",) if height else ()),
        *holes,
        *losses(projections, NAME, provenance, assumed_mu_water_per_mm=MU_WATER_PER_MM),
    )


def check(path: Path, projections: Projections) -> None:
    """Raise UsageError for anything but one slice of a flat fan, and where scipy is not there."""
    try:
        import scipy.io  # noqa: F401
    except ImportError as error:
        raise UsageError(f"MATLAB files need scipy: {install_extra('projections')}") from error
    _slice(projections)


def _slice(projections: Projections) -> CircularScan:
    """The scan, where it is one the format describes."""
    detector = projections.detector
    if projections.trajectory.source_mm is None or detector.shape != "flat" or detector.rows != 1:
        shape = "a parallel beam" if projections.trajectory.source_mm is None else f"a {detector.shape} detector"
        rows = counted(detector.rows, "row")
        raise cannot_hold(NAME, f"it holds one slice of a fan on a flat detector, and this is {shape} with {rows}")
    scan = circular_scan(projections, NAME)
    if scan.spot_flies or max(np.ptp(scan.radius_mm), np.ptp(scan.distance_mm)) > SAME_MM:
        raise cannot_hold(NAME, "the source does not stay on a circle about the isocentre")
    if np.ptp(scan.z_mm) > SAME_MM:
        raise cannot_hold(NAME, "it holds one slice, and this scan moves along the body")
    off = (scan.central_element[0] - (detector.columns - 1) / 2) * detector.column_pitch_mm
    if abs(off) > SAME_MM:
        raise cannot_hold(NAME, f"its detector is {abs(off):.4g} mm out of the middle")
    try:
        check_sweep(scan.angles_rad, "the scan")
    except InputError as error:
        raise cannot_hold(NAME, "its views do not turn one way") from error
    return scan


def _angles_deg(scan: CircularScan) -> npt.NDArray[np.float64]:
    """HelTomo's angles: with y up, columns counted the other way and the same rays, 180 degrees minus ours."""
    angles = 180.0 - np.degrees(scan.angles_rad)
    whole_turns: npt.NDArray[np.float64] = angles - 360.0 * np.floor(angles.min() / 360.0)
    return whole_turns
