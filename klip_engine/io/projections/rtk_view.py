"""One projection of RTK's "3D Projection Geometry": its nine parameters, its rotation and its matrix.

In the detector's turned frame the source is at (SourceOffsetX, SourceOffsetY, SourceToIsocenterDistance) and the
point (0, 0) of the projections at (ProjectionOffsetX, ProjectionOffsetY, SourceToIsocenterDistance -
SourceToDetectorDistance); the frame is turned by R = Rz(-in plane) Rx(-out of plane) Ry(-gantry). RTK's fixed frame
is that of IEC 61217: x to the right of an observer who faces the gantry, y into it, z up. For a patient head first
and supine, which the file cannot say, that is LPS (x, -z, y).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ROOT = "RTKThreeDCircularGeometry"
PARAMETERS = (
    "GantryAngle",
    "SourceToIsocenterDistance",
    "SourceToDetectorDistance",
    "SourceOffsetX",
    "SourceOffsetY",
    "ProjectionOffsetX",
    "ProjectionOffsetY",
    "InPlaneAngle",
    "OutOfPlaneAngle",
)
MU_WATER_PER_MM = 0.0192
"""Assumed: the files cannot say it."""
LPS_OF_IEC = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RtkView:
    """The parameters by name, angles in degrees; parallel rays have a SourceToDetectorDistance of 0. matrix:
    [3, 4], where the file gives it."""

    parameters: Mapping[str, float]
    matrix: Matrix | None = None

    def rotation(self) -> Matrix:
        """From the fixed frame to the detector's turned one."""
        gantry, out, inside = (
            np.radians(-self.parameters[name]) for name in ("GantryAngle", "OutOfPlaneAngle", "InPlaneAngle")
        )
        about_y = np.array([[np.cos(gantry), 0, np.sin(gantry)], [0, 1, 0], [-np.sin(gantry), 0, np.cos(gantry)]])
        about_x = np.array([[1, 0, 0], [0, np.cos(out), -np.sin(out)], [0, np.sin(out), np.cos(out)]])
        about_z = np.array([[np.cos(inside), -np.sin(inside), 0], [np.sin(inside), np.cos(inside), 0], [0, 0, 1]])
        return about_z @ about_x @ about_y

    def projection_matrix(self) -> Matrix:
        """From homogeneous places in the fixed frame to the detector's coordinates in mm, [3, 4]."""
        p, turn = self.parameters, np.eye(4)
        turn[:3, :3] = self.rotation()
        distance = p["SourceToDetectorDistance"]
        if distance == 0:
            x, y = p["ProjectionOffsetX"], p["ProjectionOffsetY"]
            return np.array([[1, 0, 0, -x], [0, 1, 0, -y], [0, 0, 0, 1]], np.float64) @ turn
        shift = np.eye(4)
        shift[:2, 3] = -p["SourceOffsetX"], -p["SourceOffsetY"]
        scale = np.array(
            [[-distance, 0, 0, 0], [0, -distance, 0, 0], [0, 0, 1, -p["SourceToIsocenterDistance"]]], np.float64
        )
        detector = np.eye(3)
        detector[:2, 2] = p["SourceOffsetX"] - p["ProjectionOffsetX"], p["SourceOffsetY"] - p["ProjectionOffsetY"]
        projection: Matrix = detector @ scale @ shift @ turn
        return projection
