"""How the simulated scanner differs from what the reconstruction believes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.mismatch.scan import BINS, matched_scan, result_grid, scan_geometry
from benchmarks.mismatch.study import FineStudy
from klip_engine.operators import FanCurvedGeometry, noise_preset
from klip_engine.projections import Projections
from klip_engine.simulation import SimulationSettings, simulate


@dataclass(frozen=True)
class Condition:
    """says: for the table; dose: a noise preset; matched: data of the reconstruction's own matrix and pixels;
    else changes: of the simulation's settings; wrong_offset_bins: from the detector of the file to the true one."""

    name: str
    says: str
    dose: str = "standard"
    matched: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    wrong_offset_bins: float = 0.0

    @property
    def reference(self) -> str:
        """The matched condition of the same dose."""
        return f"matched-{self.dose}"


def conditions(view_step_deg: float) -> tuple[Condition, ...]:
    """In the order of what they tell; every one but the matched ones has the other projector and the finer grid."""
    return (
        Condition("matched-standard", "matched (inverse crime), standard dose", matched=True),
        Condition("other-standard", "other projector and finer grid"),
        Condition("beam", "... and 120 kV spectrum, water-corrected", changes={"kvp": 120.0}),
        Condition("offset-1", "... and detector one bin off", wrong_offset_bins=1.0),
        Condition("jitter-0.5", "... and view angles off by 0.5 degrees (sd)", changes={"angle_jitter_deg": 0.5}),
        Condition("scatter", "... and scatter, 5 % of the median signal", changes={"scatter": 0.05}),
        Condition("bad-pixels", "... and 1 % of the bins drifting, unreported", changes={"drifting_pixels": 0.01}),
        Condition("other-low", "other projector, low dose", dose="low"),
        Condition("matched-low", "matched, low dose", dose="low", matched=True),
        Condition(
            "turning",
            "... and the gantry turning on during each view",
            changes={"exposure_deg": view_step_deg},
        ),
        Condition("jitter-0.1", "... and view angles off by 0.1 degrees (sd)", changes={"angle_jitter_deg": 0.1}),
        Condition(
            "angle-scale",
            "... and angle steps 0.5 % longer than written",
            changes={"angle_step_error_deg": 0.005 * view_step_deg},
        ),
        Condition("offset-0.25", "... and detector a quarter bin off", wrong_offset_bins=0.25),
        Condition("other-very-low", "other projector, very low dose", dose="very-low"),
        Condition("matched-very-low", "matched, very low dose", dose="very-low", matched=True),
    )


def scanned(study: FineStudy, condition: Condition, geometry: str, views: int, pixel_mm: float) -> Projections:
    """The study's slices as the condition's scanner measures them, one turn or detector row each."""
    plan = scan_geometry(geometry, views)
    if condition.matched:
        return matched_scan(study, plan, noise_preset(condition.dose), pixel_mm)
    fan = (
        {"source_isocentre_mm": plan.source_to_isocentre_mm, "source_detector_mm": plan.source_to_detector_mm}
        if isinstance(plan, FanCurvedGeometry)
        else {}
    )
    settings = SimulationSettings(
        geometry=geometry,
        views=views,
        detector_bins=BINS,
        bin_mm=plan.detector_pitch_mm,
        dose=condition.dose,
        offset_bins=condition.wrong_offset_bins,
        **fan,
        **condition.changes,
    )
    scan = replace(simulate(study.volume, settings), volume_hint=result_grid(study))
    if not condition.wrong_offset_bins:
        return scan
    _, row = scan.detector.central_element
    return replace(scan, detector=replace(scan.detector, central_element=((BINS - 1) / 2, row)))
