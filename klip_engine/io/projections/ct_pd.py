"""Reads DICOM-CT-PD: a folder with one file per view, axial or helical (the format of LDCT-and-Projection-data).

Chen et al., Med. Phys. 42(12), 2015, 6964; Moen et al., Med. Phys. 48(2), 2021, table IV. In the gantry's frame
(`gantry.py`), with phi, z, rho of the detector's focal centre and its distance d to the central element,

    focal centre   F = (-rho sin phi, rho cos phi, z)
    central element    F + d n,   n = (sin phi, -cos phi, 0)
    columns along  u = (cos phi, sin phi, 0),   rows along v = (0, 0, -1)
    focal spot     F with phi, z and rho moved by their shifts; the detector stays where it was.

A cylindrical detector has its axis through F. The central element counts from 1. The directions of u, v and z,
which the tables leave open, are those with which others found reconstructions to agree with the scanner's own
images of a feet-first scan; the other positions follow by turning the patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from klip_engine.errors import InputError
from klip_engine.io.projections import ct_pd_tags as tags
from klip_engine.io.projections import gantry
from klip_engine.io.projections.checks import check_detector, check_mu_water, check_sweep, check_trajectory
from klip_engine.io.projections.ct_pd_files import View, in_order, read_view, view_headers
from klip_engine.io.projections.first_look import FirstLook
from klip_engine.io.projections.measured import line_integrals
from klip_engine.io.projections.options import ReadOptions
from klip_engine.projections import Detector, Projections, Trajectory, beam_of
from klip_engine.volume import FloatArray

MU_WATER_PER_MM = 0.0192
"""Where the files do not say it; about 70 keV, as in `operators/noise.py`."""
_MODES = ("FFSNONE", "FFSZ", "FFSXY", "FFSXYZ")


def recognises(seen: FirstLook) -> bool:
    """DICOM with the angle of the detector's focal centre."""
    return seen.is_ct_pd


def read(path: Path, options: ReadOptions) -> Projections:
    """Read a folder of views, or the folder of the file named; `item` and `stack` mean nothing here.

    Raises InputError for missing geometry, mixed scans, views out of order, damaged files and data before the
    logarithm.
    """
    folder = path if path.is_dir() else path.parent
    views, skipped = view_headers(folder)
    views = in_order(views, folder)
    scan = _scan(views[0], folder)
    for view in views:
        if _detector(view) != (scan.detector, scan.transposed):
            raise InputError(
                f"{view.path} describes another detector than the first view; keep one scan in a folder"
            )
    poses = np.array([_pose(view) for view in views])
    _, gaps = check_sweep(poses[:, 0], str(folder))
    trajectory = _trajectory(poses, scan)
    check_detector(scan.detector, str(folder))
    repeated = check_trajectory(trajectory, str(folder))
    values, photons = _data(views, scan)
    measured = line_integrals(values, "line_integral", str(folder), i0=photons)
    notices = [*gaps, *repeated, *scan.notices, *measured.notices]
    if photons is None:
        notices.append(
            "the files hold no photon statistics (7033,1065): how far each ray can be trusted is unknown"
        )
    if skipped:
        notices.append(f"{skipped} files of the folder are no projections and were left out")
    return Projections(
        line_integrals=measured.values,
        trajectory=trajectory,
        detector=scan.detector,
        beam=beam_of(trajectory, scan.detector),
        mu_water_per_mm=scan.mu_water_per_mm,
        weights=measured.weights,
        i0=None if photons is None else float(np.median(photons)),
        isocentre_mm=scan.isocentre_mm,
        description={
            "format": "DICOM-CT-PD",
            "files": len(views),
            "scan": scan.kind,
            "flying_focal_spot": scan.mode,
            "patient_position": scan.position,
            "views_per_turn": scan.views_per_turn,
        },
        notices=tuple(notices),
    )


@dataclass(frozen=True)
class _Scan:
    """What is the same for all views."""

    detector: Detector
    transposed: bool
    mu_water_per_mm: float
    position: str
    isocentre_mm: tuple[float, float, float]
    kind: str
    mode: str
    views_per_turn: int | None
    notices: tuple[str, ...]


def _scan(first: View, folder: Path) -> _Scan:
    header, path = first.header, first.path
    _refuse_what_is_not_line_integrals(header, folder)
    detector, transposed = _detector(first)
    notices: list[str] = []
    mode = tags.text(header, tags.FFS_MODE) or "FFSNONE"
    if mode not in _MODES:
        raise InputError(f"{folder} has the unknown flying focal spot mode {mode}; known are {', '.join(_MODES)}")
    position = str(header.get("PatientPosition") or "").upper()
    if not gantry.knows(position):
        notices.append(
            "the patient's position is missing: head first, supine (HFS) was assumed; sides may be swapped"
        )
        position = "HFS"
    turn = tags.whole(header, tags.VIEWS_PER_TURN, path) if tags.VIEWS_PER_TURN[0] in header else None
    return _Scan(
        detector=detector,
        transposed=transposed,
        mu_water_per_mm=_mu_water(header, path, notices),
        position=position,
        isocentre_mm=_isocentre(header, notices),
        kind=tags.text(header, tags.DATA_TYPE).lower() or "unknown",
        mode=mode,
        views_per_turn=turn,
        notices=tuple(notices),
    )


def _refuse_what_is_not_line_integrals(header: Dataset, folder: Path) -> None:
    if tags.text(header, tags.LOG_FLAG) == "NO":
        raise InputError(
            f"{folder} holds data before the logarithm (7039,1009 is NO) and no counts in air to divide by; export "
            "it with the log correction"
        )
    if "PARALLEL" in tags.text(header, tags.GEOMETRY_TYPE):
        raise InputError(f"{folder} holds data rebinned to parallel rays (7037,100A); give them as measured")
    spectra = tags.whole(header, tags.SPECTRA, folder) if tags.SPECTRA[0] in header else 1
    if spectra > 1:
        raise InputError(f"{folder} holds the views of {spectra} tubes or spectra; keep those of one in a folder")


def _detector(first: View) -> tuple[Detector, bool]:
    """The detector, and whether images hold a detector column per row, as public data sets do."""
    header, path, stored = first.header, first.path, first.size
    rows, columns = tags.whole(header, tags.DETECTOR_ROWS, path), tags.whole(header, tags.DETECTOR_COLUMNS, path)
    if stored not in ((rows, columns), (columns, rows)):
        raise InputError(
            f"{path} holds an image of {stored[0]} x {stored[1]} but describes a detector of {rows} rows and "
            f"{columns} columns (7029,1010 and 1011); one of them is wrong"
        )
    said = tags.text(header, tags.DETECTOR_SHAPE)
    if said not in ("CYLINDRICAL", "FLAT"):
        raise InputError(
            f"the detector of {path} is {said or 'of unknown shape'}; CYLINDRICAL and FLAT can be read"
        )
    shape: Literal["flat", "cylindrical"] = "flat" if said == "FLAT" else "cylindrical"
    central = tags.floats(header, tags.CENTRAL_ELEMENT, path, 2) - 1
    detector = Detector(
        shape=shape,
        columns=columns,
        rows=rows,
        column_pitch_mm=float(tags.floats(header, tags.TRANSVERSE_SPACING, path)[0]),
        row_pitch_mm=float(tags.floats(header, tags.AXIAL_SPACING, path)[0]),
        central_element=(float(central[0]), float(central[1])),
        focal_radius_mm=None if shape == "flat" else float(tags.floats(header, tags.FOCAL_TO_DETECTOR, path)[0]),
    )
    return detector, stored == (columns, rows)


def _mu_water(header: Dataset, path: Path, notices: list[str]) -> float:
    value = tags.decimal_or_none(header, tags.WATER, path)
    if value is None:
        notices.append(f"the attenuation of water (7041,1001) is missing: {MU_WATER_PER_MM} per mm was assumed")
        return MU_WATER_PER_MM
    return check_mu_water(value, f"{path} (7041,1001)")


def _isocentre(header: Dataset, notices: list[str]) -> tuple[float, float, float]:
    """In-plane LPS of the isocentre: Data Collection Center (PS3.3 C.8.15.3.6), the origin where it is missing."""
    said = header.get("DataCollectionCenterPatient")
    center = np.atleast_1d(np.asarray([] if said is None else said, np.float64))
    if center.shape != (3,) or not np.isfinite(center).all():
        notices.append("where the isocentre lies in the patient is not said: x = y = 0 was assumed")
        return (0.0, 0.0, 0.0)
    return (float(center[0]), float(center[1]), 0.0)


def _pose(view: View) -> tuple[float, ...]:
    """phi, z, rho of the focal centre, their shifts, and d."""
    where = (tags.FOCAL_ANGLE, tags.FOCAL_Z, tags.FOCAL_RADIUS)
    shifts = (tags.SHIFT_ANGLE, tags.SHIFT_Z, tags.SHIFT_RADIUS)
    pose = [float(tags.floats(view.header, tag, view.path)[0]) for tag in where]
    moved = [float(tags.floats(view.header, tag, view.path)[0]) if tag[0] in view.header else 0.0 for tag in shifts]
    return (*pose, *moved, float(tags.floats(view.header, tags.FOCAL_TO_DETECTOR, view.path)[0]))


def _trajectory(poses: npt.NDArray[np.float64], scan: _Scan) -> Trajectory:
    phi, z, rho, shift_phi, shift_z, shift_rho, distance = poses.T
    zero, one = np.zeros_like(phi), np.ones_like(phi)
    outward = np.stack([np.sin(phi), -np.cos(phi), zero], axis=1)
    center = _on_circle(rho, phi, z) + distance[:, None] * outward
    spot = _on_circle(rho + shift_rho, phi + shift_phi, z + shift_z)
    u = np.stack([np.cos(phi), np.sin(phi), zero], axis=1)
    v = np.stack([zero, zero, -one], axis=1)
    return Trajectory(*(gantry.to_patient(part, scan.position) for part in (center, u, v, spot)))


def _on_circle(
    rho: npt.NDArray[np.float64], phi: npt.NDArray[np.float64], z: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return np.stack([-rho * np.sin(phi), rho * np.cos(phi), z], axis=1)


def _data(views: list[View], scan: _Scan) -> tuple[FloatArray, npt.NDArray[Any] | None]:
    """Line integrals [view, row, column], and photons in air [view, 1, column] where every view says them."""
    detector = scan.detector
    values = np.empty((len(views), detector.rows, detector.columns), np.float32)
    photons: npt.NDArray[Any] | None = np.empty((len(views), 1, detector.columns), np.float32)
    for number, view in enumerate(views):
        image = read_view(view)
        values[number] = image.T if scan.transposed else image
        in_air = tags.floats(view.header, tags.PHOTONS, view.path, None) if tags.PHOTONS[0] in view.header else None
        if photons is None or in_air is None or in_air.shape != (detector.columns,) or not (in_air >= 0).all():
            photons = None
        else:
            photons[number, 0] = in_air
    return values, photons
