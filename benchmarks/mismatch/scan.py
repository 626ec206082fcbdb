"""The scans of the study: where their rays run, and data of the reconstruction's own model (the inverse crime)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from benchmarks.mismatch.study import FineStudy
from klip_engine.measured_scan import for_pixels
from klip_engine.operators import (
    CTOperator,
    FanCurvedGeometry,
    FanGeometry,
    ParallelGeometry,
    ScanGeometry,
    TransmissionNoise,
)
from klip_engine.operators.noise import hu_to_mu
from klip_engine.projections import Detector, Projections, Trajectory
from klip_engine.samplers import seeded_generator
from klip_engine.scans import MeasuredSlices
from klip_engine.volume import Geometry

BINS = 736
PITCH_AT_AXIS_MM = 0.7
RESULT_PIXELS = 320
RESULT_PIXEL_MM = 1.5
"""The grid of the scan's own reconstruction: twice as fine as the default prior's, and centred on the isocentre."""


def scan_geometry(name: str, views: int) -> ScanGeometry:
    """`parallel` over half a turn or `fan-curved` over a full one, of a detector that sees 515 mm at the axis."""
    shape = {"image_shape": (1, 1), "pixel_spacing_mm": 1.0, "detector_count": BINS}
    if name == "parallel":
        return ParallelGeometry.evenly_spaced(views, detector_pitch_mm=PITCH_AT_AXIS_MM, **shape)
    fan = FanCurvedGeometry.evenly_spaced(views, detector_pitch_mm=1.0, **shape)
    return replace(fan, detector_pitch_mm=PITCH_AT_AXIS_MM * fan.magnification)


def isocentre_of(study: FineStudy) -> tuple[float, float, float]:
    """The middle of the source's picture, LPS mm, at the height of the first slice."""
    geometry = study.volume.geometry
    x, y, _ = geometry.to_lps(((geometry.size[0] - 1) / 2, (geometry.size[1] - 1) / 2, 0))
    return float(x), float(y), 0.0


def result_grid(study: FineStudy) -> Geometry:
    """Where the first image of every scan of the study lies."""
    x, y, z = isocentre_of(study)
    corner = -(RESULT_PIXELS - 1) / 2 * RESULT_PIXEL_MM
    return Geometry(
        (RESULT_PIXELS, RESULT_PIXELS, len(study.cases)),
        (RESULT_PIXEL_MM, RESULT_PIXEL_MM, study.volume.geometry.spacing[2]),
        (x + corner, y + corner, z),
    )


def matched_scan(study: FineStudy, geometry: ScanGeometry, dose: TransmissionNoise, pixel_mm: float) -> Projections:
    """Data from the reconstruction's own matrix on its own pixels, with the photons of the averaged rays."""
    fine = MeasuredSlices(
        geometry,
        *(np.ones((1, len(geometry.view_angles_rad), BINS), np.float32),) * 2,
        (0.0,),
        isocentre_of(study)[:2],
        dose.mu_water_per_mm,
    )
    coarse = for_pixels(fine, pixel_mm).geometry
    averaged = len(geometry.view_angles_rad) * BINS / (len(coarse.view_angles_rad) * coarse.detector_count)
    dose = replace(dose, i0=dose.i0 * averaged)
    side = round(RESULT_PIXELS * RESULT_PIXEL_MM / pixel_mm)
    grid = result_grid(study)
    corner = -(side - 1) / 2 * pixel_mm
    x, y, _ = isocentre_of(study)
    plane = Geometry(
        (side, side, grid.size[2]), (pixel_mm, pixel_mm, grid.spacing[2]), (x + corner, y + corner, 0.0)
    )
    operator = CTOperator(replace(coarse, image_shape=(side, side), pixel_spacing_mm=pixel_mm))
    mu = hu_to_mu(torch.from_numpy(study.truth(plane)[:, None]), dose.mu_water_per_mm)
    generators = [seeded_generator("mismatch", 0, number) for number in range(len(mu))]
    noisy = dose.apply(operator.forward(mu), generators)
    return projections_of(study, coarse, noisy.measurement.numpy(), noisy.weights.numpy(), dose)


def projections_of(
    study: FineStudy,
    geometry: ScanGeometry,
    line_integrals: np.ndarray,
    weights: np.ndarray,
    dose: TransmissionNoise,
) -> Projections:
    """Sinograms [n, views, bins] as a scan with one turn, or one detector row, for each slice of the stack."""
    count, step = len(study.cases), study.volume.geometry.spacing[2]
    angle = np.array(geometry.view_angles_rad)
    u = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    d = np.stack([-np.sin(angle), np.cos(angle), 0 * angle], axis=1)
    centre = ((geometry.detector_count - 1) / 2 - geometry.detector_offset_bins, 0.0)
    known = {"mu_water_per_mm": dose.mu_water_per_mm, "i0": dose.i0, "electronic_sigma": dose.electronic_sigma}
    where = {"isocentre_mm": isocentre_of(study), "volume_hint": result_grid(study)}
    columns, pitch = geometry.detector_count, geometry.detector_pitch_mm
    if not isinstance(geometry, FanGeometry):
        path = Trajectory(0 * u, u, np.tile([0.0, 0, 1], (len(u), 1)), ray_direction=d)
        detector = Detector("flat", columns, count, pitch, step, centre)
        rows = (part.swapaxes(0, 1).copy() for part in (line_integrals, weights))
        data, weight = rows
        return Projections(data, path, detector, "parallel", weights=weight, **known, **where)
    radius, distance = geometry.source_to_isocentre_mm, geometry.source_to_detector_mm
    height = np.repeat(np.arange(count) * step, len(u))
    source, middle = np.tile(-radius * d, (count, 1)), np.tile((distance - radius) * d, (count, 1))
    source[:, 2] = middle[:, 2] = height
    path = Trajectory(middle, np.tile(u, (count, 1)), np.tile([0.0, 0, 1], (len(height), 1)), source)
    detector = Detector("cylindrical", columns, 1, pitch, step, centre, distance)
    data, weight = (part.reshape(len(height), 1, columns) for part in (line_integrals, weights))
    return Projections(data, path, detector, "fan", weights=weight, **known, **where)
