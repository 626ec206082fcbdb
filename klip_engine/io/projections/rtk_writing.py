"""Writes RTK's geometry, XML of version 3, and beside it under the same name the stack of projections (.mha).

Every pose of a detector is a rotation and four offsets (`rtk_view.py`), so helices, flying focal spots, offset and
tilted detectors are kept; for cylindrical ones the frame is the one whose z goes through the cylinder's axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from klip_engine.errors import UsageError
from klip_engine.files import replaced_file
from klip_engine.io.projections.circular_scan import cannot_hold
from klip_engine.io.projections.losses import losses, without_holes
from klip_engine.io.projections.rtk_view import LPS_OF_IEC, MU_WATER_PER_MM, PARAMETERS, ROOT, RtkView
from klip_engine.projections import Projections
from klip_engine.volume import FloatArray

NAME = "RTK geometry"
_PARALLEL_MM = 1000.0
"""Where parallel rays begin: anywhere in front of the patient."""
Vector = npt.NDArray[np.float64]


def write(path: Path, projections: Projections, provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Write geometry and stack; returns what the format does not keep.

    An earlier geometry goes first and the new one comes last, so that no geometry ever lies beside the wrong stack.
    Raises UsageError for names that do not end in .xml, an image of that name that has no geometry beside it,
    detectors that change sides from view to view, and parallel rays that do not meet the detector squarely.
    """
    path = Path(path)
    check(path, projections)
    images = path.with_suffix(".mha")
    filled, holes = without_holes(projections, NAME)
    turned = _rows_follow_rtk(filled)
    detector, values = filled.detector, filled.line_integrals[:, ::-1] if turned else filled.line_integrals
    central = detector.rows - 1 - detector.central_element[1] if turned else detector.central_element[1]
    views = [_view(filled, number, turned) for number in range(len(values))]
    document = _document(views, float(detector.focal_radius_mm or 0.0))
    spacing = (detector.column_pitch_mm, detector.row_pitch_mm)
    origin = (-detector.central_element[0] * spacing[0], -central * spacing[1])
    with replaced_file(path) as temporary:
        temporary.write_text(document, encoding="utf-8")
        with replaced_file(images) as stack:
            _write_stack(stack, values, spacing, origin)
            path.unlink(missing_ok=True)
    return (
        f"the projections lie beside the geometry, in {images.name}",
        *holes,
        *losses(projections, NAME, provenance, assumed_mu_water_per_mm=MU_WATER_PER_MM),
    )


def check(path: Path, projections: Projections) -> None:
    """Raise UsageError for names that are none of RTK's, or whose stack is the image of something else."""
    if path.suffix.lower() != ".xml":
        raise UsageError(f"{path} would be an RTK geometry without its name: end it in .xml")
    images = path.with_suffix(".mha")
    if images.exists() and not (path.is_file() and ROOT.encode() in path.read_bytes()):
        raise UsageError(
            f"{images}, where the projections would go, is the image of something else: choose another name"
        )


def _rows_follow_rtk(projections: Projections) -> bool:
    """Whether rows must be counted the other way: columns, rows and the way to RTK's source are right-handed."""
    path = projections.trajectory
    away = [float(np.cross(path.det_u[v], path.det_v[v]) @ path.outward(v)) for v in range(path.views)]
    if np.ptp(np.sign(away)) > 0:
        raise cannot_hold(NAME, "its detector counts columns and rows differently from view to view")
    return away[0] > 0


def _view(projections: Projections, number: int, turned: bool) -> RtkView:
    """The nine parameters of a view."""
    path, radius = projections.trajectory, projections.detector.focal_radius_mm
    u, center, outward = path.det_u[number], path.det_center_mm[number], path.outward(number)
    v = -path.det_v[number] if turned else path.det_v[number]
    if radius is not None:
        axis = center - radius * outward
        w = _towards(axis - (axis @ v) * v, -outward)
    else:
        w = -outward
    frame = np.array([np.cross(v, w), v, w])
    place, offset = frame @ center, frame[0] @ center
    if radius is not None:
        offset = radius * np.arctan2(u @ w, u @ frame[0])
    parameters = dict(zip(("GantryAngle", "OutOfPlaneAngle", "InPlaneAngle"), _angles(frame), strict=True))
    parameters |= {"ProjectionOffsetX": float(offset), "ProjectionOffsetY": float(place[1])}
    if path.source_mm is None:
        if path.ray_direction is None or np.abs(path.ray_direction[number] - outward).max() > 1e-6:
            raise cannot_hold(NAME, "its parallel rays do not meet the detector at right angles")
        return RtkView(dict.fromkeys(PARAMETERS, 0.0) | {"SourceToIsocenterDistance": _PARALLEL_MM} | parameters)
    x, y, z = (float(part) for part in frame @ path.source_mm[number])
    depth = place[2] if radius is None else w @ axis - radius
    return RtkView(
        {"SourceToIsocenterDistance": z, "SourceToDetectorDistance": float(z - depth)}
        | {"SourceOffsetX": x, "SourceOffsetY": y}
        | parameters
    )


def _towards(direction: Vector, otherwise: Vector) -> Vector:
    """The unit vector, or the other where there is no direction: a cylinder about the axis of rotation."""
    length = np.linalg.norm(direction)
    if length < 1e-6:
        return otherwise
    if direction @ otherwise < 0:
        raise cannot_hold(NAME, "its cylindrical detector bends away from the source")
    unit: Vector = direction / length
    return unit


def _angles(frame: Vector) -> tuple[float, float, float]:
    """Gantry, out of plane and in plane, degrees, of R = Rz(-in plane) Rx(-out of plane) Ry(-gantry)."""
    turn = frame @ LPS_OF_IEC
    out = np.arcsin(np.clip(turn[2, 1], -1, 1))
    if np.cos(out) < 1e-9:
        raise cannot_hold(NAME, "its rays run along the axis of rotation")
    gantry, inside = np.arctan2(-turn[2, 0], turn[2, 2]), np.arctan2(-turn[0, 1], turn[1, 1])
    return float(np.degrees(-gantry) % 360), float(np.degrees(-out)), float(np.degrees(-inside))


def _document(views: list[RtkView], radius: float) -> str:
    lines = ['<?xml version="1.0"?>', "<!DOCTYPE RTKGEOMETRY>", f'<{ROOT} version="3">']
    if radius:
        lines.append(f"  <RadiusCylindricalDetector>{radius!r}</RadiusCylindricalDetector>")
    for view in views:
        lines.append("  <Projection>")
        lines += [f"    <{name}>{view.parameters[name]!r}</{name}>" for name in PARAMETERS]
        rows = [" ".join(repr(float(value)) for value in row) for row in view.projection_matrix()]
        lines += ["    <Matrix>", *(f"      {row}" for row in rows), "    </Matrix>", "  </Projection>"]
    return "\n".join([*lines, f"</{ROOT}>", ""])


def _write_stack(path: Path, values: FloatArray, spacing: tuple[float, float], origin: tuple[float, float]) -> None:
    """MetaImage, header and data in one file; written here because libraries ask the name for the format."""
    views, rows, columns = values.shape
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\n"
        f"Offset = {origin[0]!r} {origin[1]!r} 0\nElementSpacing = {spacing[0]!r} {spacing[1]!r} 1\n"
        f"DimSize = {columns} {rows} {views}\nElementType = MET_FLOAT\nElementDataFile = LOCAL\n"
    )
    with path.open("wb") as stream:
        stream.write(header.encode("ascii"))
        np.ascontiguousarray(values, "<f4").tofile(stream)
