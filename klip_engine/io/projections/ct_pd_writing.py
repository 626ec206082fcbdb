"""Writes DICOM-CT-PD: a folder with one file per view, in explicit VR, without patient data.

The tags are those `ct_pd.py` reads (Chen et al., Med. Phys. 42(12), 2015, 6964; Moen et al., Med. Phys. 48(2),
2021, table IV); as in the public data sets the rows of an image are the detector's columns. The patient is said to
lie head first and supine, so that the gantry's axes are LPS (x, -y, -z). Angles and places have 32 bits there (off
by at most 0.0003 mm), line integrals 16.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from klip_engine.errors import InputError
from klip_engine.io.atomic import check_replaceable, results_folder
from klip_engine.io.projections import ct_pd_tags as tags
from klip_engine.io.projections.checks import PLAUSIBLE_MU_WATER, check_sweep
from klip_engine.io.projections.circular_scan import SAME_MM, CircularScan, cannot_hold, circular_scan
from klip_engine.io.projections.losses import losses, without_holes
from klip_engine.projections import Projections
from klip_engine.version import __version__
from klip_engine.volume import FloatArray

NAME = "DICOM-CT-PD"
PATIENT = "KLIP^Simulated"
_LARGEST = 65535
_SAME_PHOTONS = 0.01
_CREATORS = {
    0x7029: "DetectorSystemArrangementModule",
    0x7031: "DetectorDynamicsModule",
    0x7033: "SourceDynamicsModule",
    0x7037: "ProjectionDataDefinitions",
    0x7039: "PreprocessingFlagsModule",
    0x7041: "WaterAttenuationModule",
}
_KEEPS = ("weights", "i0", "isocentre_mm")


def write(folder: Path, projections: Projections, provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Write the views into a new or empty folder, all or none; returns what the format does not keep.

    Raises UsageError for parallel beams, tilted detectors, views that do not turn one way, an attenuation of water
    that none is, and a folder that holds something.
    """
    filled, holes = without_holes(projections, NAME)
    scan = _turning(filled)
    low, slope = _rescale(scan.line_integrals)
    all_rows = True
    header = _header(projections, scan, low, slope)
    digits = max(5, len(str(len(scan.angles_rad))))
    with results_folder(folder, None) as temporary:
        for view, values in enumerate(scan.line_integrals):
            stored = np.clip(np.rint((values.astype(np.float64) - float(low)) / float(slope)), 0, _LARGEST)
            header.PixelData = stored.astype("<u2").T.tobytes()
            photons, same = _photons(scan, projections, view)
            all_rows &= same
            _place(header, view, scan, projections, photons)
            header.save_as(temporary / f"view-{view + 1:0{digits}}.dcm", enforce_file_format=True)
    return (
        f"line integrals were rounded to steps of {float(slope):.2g} (16 bits), places to 32 bits",
        *(() if all_rows else (f"{NAME} has one photon count for all rows of a column: weights were evened out",)),
        *holes,
        *losses(projections, NAME, provenance, keeps=_KEEPS),
    )


def check(folder: Path, projections: Projections) -> None:
    """Raise UsageError as `write` does, without looking at the line integrals."""
    _turning(projections)
    check_replaceable(Path(folder), None)


def _turning(projections: Projections) -> CircularScan:
    """The scan, where the format has words for it."""
    if projections.trajectory.source_mm is None:
        raise cannot_hold(NAME, "it is a parallel beam, and the format holds fans and cones")
    least, most = PLAUSIBLE_MU_WATER
    if not least <= projections.mu_water_per_mm <= most:
        raise cannot_hold(NAME, f"water attenuates by {least} to {most} per mm in it")
    scan = circular_scan(projections, NAME)
    try:
        check_sweep(scan.angles_rad, "the scan")
    except InputError as error:
        raise cannot_hold(NAME, "its views do not turn one way") from error
    return scan


def _rescale(values: FloatArray) -> tuple[DSfloat, DSfloat]:
    """Intercept and slope of all views, as the 16 characters of a DS keep them."""
    low, high = float(values.min()), float(values.max())
    slope = max(high - low, 1e-6) / _LARGEST
    return DSfloat(low, auto_format=True), DSfloat(slope * (1 + 1e-9), auto_format=True)


def _photons(scan: CircularScan, projections: Projections, view: int) -> tuple[FloatArray | None, bool]:
    """Photons in air per column, from the weights, else I0 (None: unknown), and whether all rows have them.

    Weights are c² / (c + sigma_e²) of counts c (`measured.py`), which is solved for c; a column of several rows
    gets the middle one of its good elements, 0 where it has none.
    """
    values = scan.line_integrals[view].astype(np.float64)
    if scan.weights is None:
        i0 = projections.i0
        return None if i0 is None else np.full(values.shape[1], i0, np.float32), True
    weights = scan.weights[view].astype(np.float64)
    variance = float(projections.electronic_sigma or 0.0) ** 2
    in_air = (weights + np.sqrt(weights**2 + 4 * weights * variance)) / 2 * np.exp(values)
    good = weights > 0
    photons: FloatArray = np.median(in_air, axis=0).astype(np.float32)
    for column in np.flatnonzero(~good.all(axis=0)):
        photons[column] = np.median(in_air[good[:, column], column]) if good[:, column].any() else 0
    return photons, bool((np.abs(in_air - photons) <= _SAME_PHOTONS * photons)[good].all())


def _header(projections: Projections, scan: CircularScan, low: DSfloat, slope: DSfloat) -> Dataset:
    """What is the same in every view."""
    detector = projections.detector
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = CTImageStorage
    header.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    header.StudyInstanceUID, header.SeriesInstanceUID = generate_uid(), generate_uid()
    header.FrameOfReferenceUID = generate_uid()
    header.Modality, header.Manufacturer, header.SoftwareVersions = "CT", "klip-engine", __version__
    header.SeriesDescription = "CT projections, research software"
    header.PatientName = header.PatientID = PATIENT
    header.PatientPosition = "HFS"
    for unknown in _UNKNOWN:
        setattr(header, unknown, None)
    header.SeriesNumber, header.AcquisitionNumber = 1, 1
    header.Rows, header.Columns = detector.columns, detector.rows
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 0
    header.RescaleIntercept, header.RescaleSlope, header.RescaleType = low, slope, "US"
    for group, creator in _CREATORS.items():
        header.private_block(group, creator, create=True)
    column, row = scan.central_element
    for tag, vr, value in (
        (tags.TRANSVERSE_SPACING, "FL", detector.column_pitch_mm),
        (tags.AXIAL_SPACING, "FL", detector.row_pitch_mm),
        (tags.DETECTOR_SHAPE, "CS", detector.shape.upper()),
        (tags.DETECTOR_ROWS, "US", detector.rows),
        (tags.DETECTOR_COLUMNS, "US", detector.columns),
        (tags.CENTRAL_ELEMENT, "FL", [column + 1, row + 1]),
        (tags.FFS_MODE, "CS", _flying_mode(scan)),
        (tags.VIEWS_PER_TURN, "US", _views_per_turn(scan)),
        (tags.SPECTRA, "US", 1),
        (tags.DATA_TYPE, "CS", "HELICAL" if np.ptp(scan.z_mm) > SAME_MM else "AXIAL"),
        (tags.GEOMETRY_TYPE, "CS", "FANBEAM"),
        (tags.LOG_FLAG, "CS", "YES"),
        (tags.WATER, "DS", DSfloat(projections.mu_water_per_mm, auto_format=True)),
    ):
        header.add_new(tag[0], vr, value)
    return header


_UNKNOWN = (
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
    *("PatientBirthDate", "PatientSex", "PositionReferenceIndicator", "KVP", "Laterality"),
)
"""Type 2 of PS3.3: present and empty."""


def _place(
    header: Dataset,
    view: int,
    scan: CircularScan,
    projections: Projections,
    photons: FloatArray | None,
) -> None:
    """What one view has of its own; gantry angles run the other way than those about LPS z."""
    x, y, z = projections.isocentre_mm
    header.SOPInstanceUID = generate_uid()
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.InstanceNumber = view + 1
    header.DataCollectionCenterPatient = [x, y, z + float(scan.z_mm[view])]
    for tag, value in (
        (tags.FOCAL_ANGLE, float(-scan.angles_rad[view] % (2 * np.pi))),
        (tags.FOCAL_Z, -(z + float(scan.z_mm[view]))),
        (tags.FOCAL_RADIUS, float(scan.radius_mm[view])),
        (tags.FOCAL_TO_DETECTOR, float(scan.distance_mm[view])),
        (tags.SHIFT_ANGLE, -float(scan.spot_rad[view])),
        (tags.SHIFT_Z, -float(scan.spot_z_mm[view])),
        (tags.SHIFT_RADIUS, float(scan.spot_radius_mm[view])),
    ):
        header.add_new(tag[0], "FL", value)
    if photons is not None:
        header.add_new(tags.PHOTONS[0], "FL", photons.tolist())


def _flying_mode(scan: CircularScan) -> str:
    if not scan.spot_flies:
        return "FFSNONE"
    along = np.ptp(scan.spot_z_mm) > SAME_MM
    across = np.ptp(scan.spot_rad * scan.radius_mm) > SAME_MM
    return "FFSXYZ" if along and across else "FFSZ" if along else "FFSXY"


def _views_per_turn(scan: CircularScan) -> int:
    steps = np.abs(np.diff(scan.angles_rad))
    turn = 1.0 if len(steps) == 0 else 2 * np.pi / float(np.median(steps))
    return int(np.clip(np.rint(turn), 1, _LARGEST))
