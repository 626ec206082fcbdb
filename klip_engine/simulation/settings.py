"""What can be set about a simulated scan; written into the file it makes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from klip_engine.errors import UsageError
from klip_engine.operators import NOISE_PRESETS

GEOMETRIES = ("parallel", "fan-flat", "fan-curved", "helical")
DOSES = ("none", *NOISE_PRESETS)
RAYS = ("exact", "joseph")
LONGEST_EXPOSURE_DEG = 0.5
"""Scans of few views are pulsed: a view smeared over steps of several degrees would be of no use."""
MOST_SUB_RAYS = 6
_SHORTEST_ARC_DEG = 10.0
_RANGES: dict[str, tuple[float, float]] = {
    "views": (2, 100_000),
    "arc_deg": (0, 1e6),
    "start_deg": (-360, 360),
    "detector_bins": (2, 20_000),
    "bin_mm": (1e-3, 1e3),
    "source_isocentre_mm": (1, 1e5),
    "source_detector_mm": (1, 1e5),
    "offset_bins": (-20_000, 20_000),
    "detector_rows": (1, 1024),
    "row_mm": (1e-3, 1e3),
    "pitch": (0.01, 10),
    "kvp": (40, 150),
    "scatter": (0, 10),
    "dead_pixels": (0, 1),
    "drifting_pixels": (0, 1),
    "angle_jitter_deg": (0, 180),
    "angle_step_error_deg": (-180, 180),
    "slice_mm": (0.01, 1e3),
    "sub_rays": (1, MOST_SUB_RAYS),
    "spot_mm": (0, 20),
    "pixel_mm": (0.01, 1e3),
    "seed": (0, 2**63 - 1),
}
"""Beyond these no scanner is, and what they make of a scan is no data: NaN, one point, or no end."""


@dataclass(frozen=True)
class SimulationSettings:
    """A scanner and how it errs. The defaults are a common multi-slice scanner at standard dose.

    geometry: one of `GEOMETRIES`; parallel and fans take every slice at rest, a helix moves the table.
    views: per turn, or over `arc_deg`; arc_deg: None for 360 degrees (parallel: 180); start_deg: of the first view.
    detector_bins, bin_mm: columns and their width on the detector, None for 0.705 mm at the isocentre;
    source_isocentre_mm, source_detector_mm: of fans; offset_bins: shift of the detector along its columns (0.25: a
    quarter-detector shift). detector_rows, row_mm: of a helix, row_mm on the detector; pitch: table feed per turn
    over the rows' height at the isocentre.
    dose: a noise preset, or "none" for ideal data. kvp: tube voltage of a polychromatic beam, None for one energy;
    water_correction: whether its data are corrected so that water is flat. scatter: added to every ray, as a share
    of the view's median signal behind the body. dead_pixels, drifting_pixels: share of the detector elements that
    are known to be dead, and that err in gain without anybody knowing. angle_jitter_deg, angle_step_error_deg:
    deviation of each view's true angle from the one written, and by how much each step is longer than written.
    slices: range [first, last) of the axial slices; slice_mm: thickness and distance of the measured slices, None
    for the volume's own. rays: "exact" lengths in pixels, or "joseph", what reconstructions use; sub_rays: over
    which each ray is averaged in intensity (bin, turn during a view, focal spot of spot_mm); exposure_deg: that
    turn, None for the whole step but `LONGEST_EXPOSURE_DEG` at most; pixel_mm: the volume's pixels are divided
    where they are larger. seed: of noise and faults.
    Raises UsageError for what no scanner does.
    """

    geometry: str = "fan-curved"
    views: int = 360
    arc_deg: float | None = None
    start_deg: float = 0.0
    detector_bins: int = 736
    bin_mm: float | None = None
    source_isocentre_mm: float = 595.0
    source_detector_mm: float = 1085.6
    offset_bins: float = 0.0
    detector_rows: int = 16
    row_mm: float = 2.1894
    pitch: float = 1.0
    dose: str = "standard"
    kvp: float | None = None
    water_correction: bool = True
    scatter: float = 0.0
    dead_pixels: float = 0.0
    drifting_pixels: float = 0.0
    angle_jitter_deg: float = 0.0
    angle_step_error_deg: float = 0.0
    slices: tuple[int, int] | None = None
    slice_mm: float | None = None
    rays: str = "exact"
    sub_rays: int | None = None
    spot_mm: float = 1.0
    exposure_deg: float | None = None
    pixel_mm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of(self.geometry, GEOMETRIES, "geometry")
        _one_of(self.dose, DOSES, "dose")
        _one_of(self.rays, RAYS, "kind of rays")
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise UsageError(
                    f"{name} of a simulated scan is {value:.6g}; it must be from {least:.6g} to {most:.6g}"
                )
        self._check_arc()
        self._check_elements()
        if self.source_detector_mm < self.source_isocentre_mm:
            raise UsageError(
                f"the detector is {self.source_detector_mm:g} mm from the source and the isocentre "
                f"{self.source_isocentre_mm:g} mm: the detector must lie beyond the isocentre"
            )
        if self.slices is not None and not 0 <= self.slices[0] < self.slices[1]:
            raise UsageError(
                f"there are no slices {self.slices[0]}:{self.slices[1]}; give FIRST:LAST, LAST excluded"
            )

    def _check_arc(self) -> None:
        arc = self.arc
        if self.geometry == "helical":
            if arc < 360:
                raise UsageError(
                    f"a helix of {arc:g} degrees is no full turn; leave the arc out, or give 360 or more"
                )
        elif not _SHORTEST_ARC_DEG <= arc <= 360:
            raise UsageError(f"an arc of {arc:g} degrees cannot be used; give {_SHORTEST_ARC_DEG:g} to 360 degrees")
        if self.exposure_deg is not None and not 0 <= self.exposure_deg <= self.step_deg:
            raise UsageError(
                f"exposure_deg of a simulated scan is {self.exposure_deg:g}; it lies between 0 and the step of the "
                f"views, {self.step_deg:g}"
            )
        if self.angle_step_error_deg <= -self.step_deg:
            raise UsageError("with this error of the angle steps the gantry would turn backwards")

    def _check_elements(self) -> None:
        if self.dead_pixels + self.drifting_pixels > 1:
            raise UsageError("more bad pixels were asked for than the detector has")
        if self.dead_pixels == 1:
            raise UsageError("with every detector element dead nothing is measured")

    @property
    def is_fan(self) -> bool:
        """Whether rays leave one focal spot."""
        return self.geometry != "parallel"

    @property
    def bundle(self) -> int:
        """Rays that make up one: unless given, 4 at rest and 2 on a helix, which takes longer."""
        if self.sub_rays is not None:
            return self.sub_rays
        return 2 if self.geometry == "helical" else 4

    @property
    def exposed_deg(self) -> float:
        """Over how much of its turn a view is taken."""
        return min(self.step_deg, LONGEST_EXPOSURE_DEG) if self.exposure_deg is None else self.exposure_deg

    @property
    def arc(self) -> float:
        """Degrees over which views are taken; of a helix None means as many turns as the slices need."""
        return self.arc_deg if self.arc_deg is not None else (360.0 if self.is_fan else 180.0)

    @property
    def step_deg(self) -> float:
        """From one view to the next; of a helix, views are counted per turn."""
        return (360.0 if self.geometry == "helical" else self.arc) / self.views

    @property
    def collimation_mm(self) -> float:
        """Height of a helix's rows together, at the isocentre."""
        return self.detector_rows * self.row_mm * self.source_isocentre_mm / self.source_detector_mm

    @property
    def feed_mm(self) -> float:
        """Table feed of a helix in one turn."""
        return self.pitch * self.collimation_mm

    @property
    def column_mm(self) -> float:
        """Width of a detector column, by default 0.705 mm at the isocentre."""
        default = 1.2858 if self.is_fan else 0.7047
        return default if self.bin_mm is None else self.bin_mm

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


def _one_of(value: str, known: tuple[str, ...], what: str) -> None:
    if value not in known:
        raise UsageError(f"unknown {what} '{value}' of a simulated scan; it is one of {', '.join(known)}")
