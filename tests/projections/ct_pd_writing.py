"""DICOM-CT-PD files written tag by tag as Moen et al. 2021, table IV, and the format's manual describe them.

Independent of the reader: element places and rays are worked out here, in the gantry's own frame, in polar form.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from tests.projections.ellipsoids import through

RHO, DISTANCE, TRANSVERSE, AXIAL = 595.0, 1085.6, 4.6, 3.3
COLUMNS, ROWS, CENTRAL = 40, 4, (21.75, 2.25)  # counted from 1
SLOPE, INTERCEPT = 1.0 / 12000, -0.25

# What an observer in front of the gantry sees of LPS: x right, y up, z towards him.
LEFT_BACK_HEAD = {
    "HFS": (
        [1, 0, 0],
        [0, -1, 0],
        [0, 0, -1],
    ),  # feet towards the observer, face up: his left is the observer's right
    "FFS": ([-1, 0, 0], [0, -1, 0], [0, 0, 1]),
    "FFDR": ([0, 1, 0], [-1, 0, 0], [0, 0, 1]),  # lies on his right side: left is up
}


def shifts(mode: str, view: int) -> tuple[float, float, float]:
    """Angle (rad), z and radius (mm) by which the focal spot is off at a view; exaggerated, so that errors show."""
    in_plane, along = "XY" in mode, mode.endswith("Z")
    return (
        (0.006 * (-1) ** view if in_plane else 0.0),
        (2.5 * (-1) ** (view // 2) if along else 0.0),
        (1.5 * (-1) ** view if mode != "FFSNONE" else 0.0),
    )


def pose(view: int, views: int, feed: float) -> tuple[float, float]:
    """phi and z of the detector's focal centre."""
    phi = 0.4 + 2 * np.pi * view / views
    return phi % (2 * np.pi), 10.0 + feed * view / views


def line_integrals(view: int, views: int, feed: float, mode: str, position: str, flat: bool = False) -> np.ndarray:
    """Exact, [rows, columns], of a phantom that lies in the patient's LPS."""
    phi, z = pose(view, views, feed)
    d_phi, d_z, d_rho = shifts(mode, view)
    focal = np.array([-RHO * np.sin(phi), RHO * np.cos(phi), z])
    spot = np.array([-(RHO + d_rho) * np.sin(phi + d_phi), (RHO + d_rho) * np.cos(phi + d_phi), z + d_z])
    across = (np.arange(1, COLUMNS + 1) - CENTRAL[0]) * TRANSVERSE
    height = -(np.arange(1, ROWS + 1) - CENTRAL[1]) * AXIAL
    if flat:
        straight = focal[:2] + DISTANCE * np.array([np.sin(phi), -np.cos(phi)])
        in_plane = straight + across[:, None] * np.array([np.cos(phi), np.sin(phi)])
    else:
        fan = phi + across / DISTANCE
        in_plane = focal[:2] + DISTANCE * np.stack([np.sin(fan), -np.cos(fan)], axis=-1)
    elements = np.empty((ROWS, COLUMNS, 3))
    elements[..., :2], elements[..., 2] = in_plane, (z + height)[:, None]
    to_lps = np.array(LEFT_BACK_HEAD[position], float)
    return through(spot @ to_lps.T, (elements - spot) @ to_lps.T)


def write_view(
    path: Path, view: int, views: int, *, implicit: bool, feed=0.0, mode="FFSNONE", position="HFS", **more
):
    """One view; `more`: photons (per column), transposed (False: Rows are detector rows), flat, without (tags left
    out), change (values put in their place), number (InstanceNumber), series, slope."""
    phi, z = pose(view, views, feed)
    flat = more.get("flat", False)
    values = more.get("values", line_integrals(view, views, feed, mode, position, flat))
    stored = np.rint((values - INTERCEPT) / SLOPE).astype(np.uint16)
    if more.get("transposed", True):
        stored = stored.T
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", generate_uid()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PatientName, dataset.PatientPosition = "CT", "Doe^Jane", position
    dataset.SeriesInstanceUID = more.get("series", "1.2.3.4")
    dataset.InstanceNumber = more.get("number", view + 1)
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = SLOPE, INTERCEPT
    dataset.PixelData = stored.tobytes()
    d_phi, d_z, d_rho = shifts(mode, view)
    private = {
        0x70290010: ("LO", "DetectorSystemArrangementModule"),
        0x70291002: ("FL", TRANSVERSE),
        0x70291006: ("FL", AXIAL),
        0x7029100B: ("CS", "FLAT" if flat else "CYLINDRICAL"),
        0x70291010: ("US", ROWS),
        0x70291011: ("US", COLUMNS),
        0x70310010: ("LO", "DetectorDynamicsModule"),
        0x70311001: ("FL", phi),
        0x70311002: ("FL", z),
        0x70311003: ("FL", RHO),
        0x70311031: ("FL", DISTANCE),
        0x70311033: ("FL", list(CENTRAL)),
        0x70330010: ("LO", "SourceDynamicsModule"),
        0x7033100B: ("FL", d_phi),
        0x7033100C: ("FL", d_z),
        0x7033100D: ("FL", d_rho),
        0x7033100E: ("CS", mode),
        0x70331013: ("US", views),
        0x70370010: ("LO", "ProjectionDataDefinitions"),
        0x70371009: ("CS", "HELICAL" if feed else "AXIAL"),
        0x7037100A: ("CS", "FANBEAM"),
        0x70390010: ("LO", "PreprocessingFlagsModule"),
        0x70391009: ("CS", "YES"),
        0x70410010: ("LO", "WaterAttenuationModule"),
        0x70411001: ("DS", "0.0193"),
    }
    if "photons" in more:
        private[0x70331065] = ("FL", list(more["photons"]))
    private.update(more.get("change", {}))
    for tag, (vr, value) in private.items():
        if implicit and vr in ("FL", "US", "CS", "DS"):
            vr, value = "UN", _bytes(vr, value)
        dataset.add_new(tag, vr, value)
    for tag in more.get("without", ()):
        del dataset[tag]
    pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=True)


def write_scan(folder: Path, views=24, **more) -> Path:
    """A folder whose names say nothing about the order of its files."""
    folder.mkdir()
    for view in range(views * more.pop("turns", 1)):
        write_view(folder / f"{(view * 7919) % 10007:05d}.dcm", view, views, **more)
    return folder


def _bytes(vr: str, value) -> bytes:
    if vr in ("CS", "DS"):
        return value.encode() + b" " * (len(value) % 2)
    values = value if isinstance(value, list) else [value]
    return struct.pack(f"<{len(values)}{'f' if vr == 'FL' else 'H'}", *values)
