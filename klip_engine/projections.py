"""CT projection data as a scanner measured it: line integrals, how far each can be trusted, and where the rays ran.

Everything is in LPS millimetres with the isocentre at the origin of the trajectory (`Projections.isocentre_mm`).
Element (column c, row r) of a view lies, with (c0, r0) the central element, on a flat detector at

    det_center + (c - c0) * column_pitch * det_u + (r - r0) * row_pitch * det_v,

and on a cylindrical one at the angle (c - c0) * column_pitch / focal_radius, towards det_u, around the axis along
det_v that lies focal_radius from det_center on the source's side, and at the same height (r - r0) * row_pitch along
det_v. The source sits on that axis unless a flying focal spot has moved it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from klip_engine.errors import InputError
from klip_engine.volume import FloatArray, Geometry

Beam = Literal["parallel", "fan", "cone"]
Vectors = npt.NDArray[np.float64]
"""[views, 3], LPS."""

LARGEST_FAN_CONE_DEG = 4.0
"""Rows that lean further out of the plane of rotation make a cone beam: single-slice rebinning no longer holds."""


@dataclass(frozen=True)
class Detector:
    """shape: flat, or cylindrical about the source; pitches in mm at the detector; central_element: the fractional
    (column, row) that `det_center_mm` names; focal_radius_mm: of a cylindrical one, its distance from its axis."""

    shape: Literal["flat", "cylindrical"]
    columns: int
    rows: int
    column_pitch_mm: float
    row_pitch_mm: float
    central_element: tuple[float, float]
    focal_radius_mm: float | None = None


@dataclass(frozen=True)
class Trajectory:
    """Where source and detector were at each view.

    source_mm: of fan and cone beams; ray_direction: of parallel beams, unit vectors from the source side to the
    detector; det_center_mm, and unit vectors det_u along the columns' numbers and det_v along the rows'.
    """

    det_center_mm: Vectors
    det_u: Vectors
    det_v: Vectors
    source_mm: Vectors | None = None
    ray_direction: Vectors | None = None

    @property
    def views(self) -> int:
        """How many."""
        return len(self.det_center_mm)

    def outward(self, view: int) -> npt.NDArray[np.float64]:
        """The detector's unit normal at one view, away from the source: [3]."""
        normal = np.cross(self.det_u[view], self.det_v[view])
        if self.source_mm is not None:
            ray = self.det_center_mm[view] - self.source_mm[view]
        elif self.ray_direction is not None:
            ray = self.ray_direction[view]
        else:
            raise InputError("the trajectory names neither sources nor ray directions")
        return normal if normal @ ray > 0 else -normal


@dataclass(frozen=True)
class Projections:
    """A scan: `line_integrals` [view, row, column] float32, without unit.

    weights: of the same shape, the inverse variance of each line integral, 0 where nothing was measured (bad or
    truncated elements); None: unknown. mu_water_per_mm: attenuation of water that turns them into HU. i0,
    electronic_sigma: photons per ray without an object and detector noise in photons, where known.
    isocentre_mm: LPS of the trajectory's origin in the patient. volume_hint: the grid the data's own
    reconstruction lies on, where the file names one. description, notices: as in `klip_engine.io.LoadedCT`, no
    patient data.
    Raises InputError where the parts do not fit together.
    """

    line_integrals: FloatArray
    trajectory: Trajectory
    detector: Detector
    beam: Beam
    mu_water_per_mm: float
    weights: FloatArray | None = None
    i0: float | None = None
    electronic_sigma: float | None = None
    isocentre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    volume_hint: Geometry | None = None
    description: dict[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        views, shape = self.trajectory.views, self.line_integrals.shape
        expected = (views, self.detector.rows, self.detector.columns)
        if shape != expected:
            raise InputError(
                f"the projections are {list(shape)}, but their geometry describes {list(expected)} "
                "(views, detector rows, detector columns)"
            )
        if self.weights is not None and self.weights.shape != shape:
            raise InputError(f"the weights are {list(self.weights.shape)}, the projections {list(shape)}")
        if not np.isfinite(self.line_integrals).all():
            raise InputError("the projections hold values that are not finite (NaN or infinite)")

    @property
    def cone_half_angle_deg(self) -> float:
        """How far the outermost row's ray leans out of the plane of the central ray and det_u; 0 for parallel."""
        return _cone_half_angle_deg(self.trajectory, self.detector)

    def elements_mm(self, view: int) -> npt.NDArray[np.float64]:
        """Centres of the detector elements at one view: [rows, columns, 3], LPS mm from the isocentre."""
        detector, path = self.detector, self.trajectory
        across = (np.arange(detector.columns) - detector.central_element[0]) * detector.column_pitch_mm
        along = (np.arange(detector.rows) - detector.central_element[1]) * detector.row_pitch_mm
        center, u, v = path.det_center_mm[view], path.det_u[view], path.det_v[view]
        in_plane = center + across[:, None] * u
        if detector.shape == "cylindrical":
            outward = path.outward(view)
            radius = float(detector.focal_radius_mm or 0.0)
            angle = across[:, None] / radius
            in_plane = center - radius * outward + radius * (np.cos(angle) * outward + np.sin(angle) * u)
        points: npt.NDArray[np.float64] = in_plane[None] + along[:, None, None] * v
        return points


def refuse_cone(projections: Projections) -> None:
    """Raise InputError for a cone beam, with what to do instead."""
    if projections.beam == "cone":
        raise InputError(
            f"these projections are a cone beam (rows up to {projections.cone_half_angle_deg:.1f} degrees out of "
            "the plane): reconstruct them first, for example with RTK's FDK, and give the volume"
        )


def beam_of(trajectory: Trajectory, detector: Detector) -> Beam:
    """What the geometry makes of the rays: parallel, a fan (one row, or rows near the plane), or a cone."""
    if trajectory.source_mm is None:
        return "parallel"
    if detector.rows == 1 or _cone_half_angle_deg(trajectory, detector) <= LARGEST_FAN_CONE_DEG:
        return "fan"
    return "cone"


def _cone_half_angle_deg(trajectory: Trajectory, detector: Detector) -> float:
    if trajectory.source_mm is None:
        return 0.0
    distance = np.linalg.norm(trajectory.det_center_mm - trajectory.source_mm, axis=1).min()
    central = detector.central_element[1]
    farthest = max(abs(central), abs(detector.rows - 1 - central)) * detector.row_pitch_mm
    return float(np.degrees(np.arctan2(farthest, distance)))
