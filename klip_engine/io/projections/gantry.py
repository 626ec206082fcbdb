"""From the gantry's frame to the patient's, by how the patient lies (PatientPosition, PS3.3 C.7.3.1.1.2).

The gantry's frame is that of an observer in front of the gantry, where the table enters: X to the observer's right,
Y up, Z towards the observer, the isocentre at 0.
"""

from __future__ import annotations

import numpy as np

from klip_engine.projections import Vectors

_LPS_OF_GANTRY: dict[str, tuple[tuple[int, int, int], ...]] = {
    "HFS": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "FFS": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    "HFP": ((-1, 0, 0), (0, 1, 0), (0, 0, -1)),
    "FFP": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "HFDR": ((0, 1, 0), (1, 0, 0), (0, 0, -1)),
    "HFDL": ((0, -1, 0), (-1, 0, 0), (0, 0, -1)),
    "FFDR": ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    "FFDL": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
}
"""Rows: the patient's left, back and head in the gantry's axes."""


def knows(patient_position: str) -> bool:
    """Whether the position is one of the eight this program can place."""
    return patient_position in _LPS_OF_GANTRY


def to_patient(gantry: Vectors, patient_position: str) -> Vectors:
    """Vectors [views, 3] in the gantry's frame as LPS."""
    turned: Vectors = gantry @ np.array(_LPS_OF_GANTRY[patient_position], np.float64).T
    return turned
