"""CT scan geometries of one slice: where the rays of every view and detector bin run, and over which pixels.

Axes. An image is [row, column]; pixel (row, column) is centred at

    x = cx + (column - (nx - 1) / 2) * spacing,    y = cy + (row - (ny - 1) / 2) * spacing    [mm]

from the isocentre, (cx, cy) being `image_centre_mm`: x to the patient's left and y to the posterior (LPS), so
row 0 is anterior, on top.

Angles. At view angle b the detector axis is u = (cos b, sin b) and the central ray runs along
d = (-sin b, cos b). At angle 0 the rays therefore run from anterior to posterior (down the image), a fan's
source is above the image, and bins count towards +x. The angle grows from +x towards +y (clockwise as seen).

Bins. Bin j lies at (j - (bins - 1) / 2 + offset) * pitch along the detector from the
central ray.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import torch

from klip_engine.errors import InputError, UsageError

DEFAULT_IMAGE_SHAPE = (128, 160)
DEFAULT_PIXEL_SPACING_MM = 3.0
DEFAULT_SOURCE_TO_ISOCENTRE_MM = 595.0
DEFAULT_SOURCE_TO_DETECTOR_MM = 1085.6


class Rays(NamedTuple):
    """Straight lines in the image plane, a point and a unit direction each: [rays, 2] as (x, y) in mm."""

    point: torch.Tensor
    direction: torch.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScanGeometry:
    """What every geometry has; use one of `ParallelGeometry`, `FanFlatGeometry`, `FanCurvedGeometry`.

    Instances are hashable and compare by value. Raises `InputError`, naming the field, for values that
    describe no scanner.
    """

    view_angles_rad: tuple[float, ...]
    """One angle per view, in any order and spacing."""
    detector_count: int
    """Detector bins per view."""
    detector_pitch_mm: float
    """Distance between bin centres on the detector; along the arc where the detector is curved."""
    detector_offset_bins: float = 0.0
    """Shift of the whole detector along its axis, in bins (0.25: a quarter-bin shift)."""
    image_shape: tuple[int, int] = DEFAULT_IMAGE_SHAPE
    """(rows, columns); need not be square."""
    pixel_spacing_mm: float = DEFAULT_PIXEL_SPACING_MM
    """Side of the square pixels."""
    image_centre_mm: tuple[float, float] = (0.0, 0.0)
    """(x, y) of the middle of the image grid, from the isocentre."""

    kind: ClassVar[str]
    full_arc_deg: ClassVar[float]

    def __post_init__(self) -> None:
        self._coerce("view_angles_rad", lambda angles: tuple(float(angle) for angle in angles))
        self._coerce("detector_count", _whole_number)
        for field in dataclasses.fields(self):
            if field.type == "float":
                self._coerce(field.name, float)
        self._coerce("image_shape", lambda shape: tuple(_whole_number(side) for side in shape))
        self._coerce("image_centre_mm", lambda centre: tuple(float(part) for part in centre))
        _require(
            len(self.image_centre_mm) == 2 and all(map(math.isfinite, self.image_centre_mm)),
            f"image_centre_mm is {self.image_centre_mm}: it must be (x, y), both finite",
        )
        _require(len(self.view_angles_rad) > 0, "view_angles_rad is empty: a scan needs at least one view")
        _require(all(map(math.isfinite, self.view_angles_rad)), "view_angles_rad holds a value that is not finite")
        _require(self.detector_count > 0, f"detector_count is {self.detector_count}: it must be positive")
        _require(
            len(self.image_shape) == 2 and min(self.image_shape) > 0,
            f"image_shape is {self.image_shape}: it must be (rows, columns), both positive",
        )
        self._require_positive("detector_pitch_mm")
        self._require_positive("pixel_spacing_mm")
        _require(math.isfinite(self.detector_offset_bins), "detector_offset_bins is not finite")

    @classmethod
    def evenly_spaced(
        cls,
        views: int,
        *,
        arc_deg: float | None = None,
        start_deg: float = 0.0,
        image_shape: tuple[int, int] = DEFAULT_IMAGE_SHAPE,
        pixel_spacing_mm: float = DEFAULT_PIXEL_SPACING_MM,
        detector_count: int | None = None,
        detector_pitch_mm: float | None = None,
        detector_offset_bins: float = 0.0,
        image_centre_mm: tuple[float, float] = (0.0, 0.0),
        **distances_mm: float,
    ) -> Self:
        """A scan at angles start + i * arc / views for i = 0 .. views - 1.

        An `arc_deg` below the usual makes it a limited-angle scan. Unless given: the arc is 180 degrees for
        parallel beams and 360 for fans; the pitch is one pixel at the isocentre; the detector sees the whole
        image grid from every angle. `distances_mm` are the fan's `source_to_isocentre_mm` and
        `source_to_detector_mm`.

        Raises `UsageError` for fewer than one view or an arc outside (0, 360], `InputError` as its class.
        """
        arc_deg = cls.full_arc_deg if arc_deg is None else arc_deg
        if views != int(views) or views < 1:
            raise UsageError(f"A scan needs a whole number of views, one or more; views={views} was asked for.")
        if not 0 < arc_deg <= 360 or not math.isfinite(start_deg):
            raise UsageError(
                f"A scan's arc_deg is above 0 and at most 360, its start_deg finite; got arc_deg={arc_deg}, "
                f"start_deg={start_deg}."
            )
        scan = cls(
            view_angles_rad=tuple(math.radians(start_deg + i * arc_deg / views) for i in range(int(views))),
            detector_count=1,
            detector_pitch_mm=1.0,
            detector_offset_bins=detector_offset_bins,
            image_shape=image_shape,
            pixel_spacing_mm=pixel_spacing_mm,
            image_centre_mm=image_centre_mm,
            **distances_mm,
        )
        pitch = scan.pixel_spacing_mm * scan.magnification if detector_pitch_mm is None else detector_pitch_mm
        scan = dataclasses.replace(scan, detector_pitch_mm=pitch)
        count = scan.bins_to_cover_image() if detector_count is None else detector_count
        return dataclasses.replace(scan, detector_count=count)

    @property
    def magnification(self) -> float:
        """Size on the detector over size at the isocentre."""
        return 1.0

    @property
    def image_radius_mm(self) -> float:
        """Of the disc about the isocentre that holds the image grid, pixel edges included."""
        rows, columns = self.image_shape
        x, y = map(abs, self.image_centre_mm)
        return math.hypot(x + 0.5 * columns * self.pixel_spacing_mm, y + 0.5 * rows * self.pixel_spacing_mm)

    def bins_to_cover_image(self) -> int:
        """Bins of this pitch and offset with which every view sees the whole image grid."""
        half_width_bins = self._shadow_half_width_mm() / self.detector_pitch_mm
        return math.ceil(2 * (half_width_bins + abs(self.detector_offset_bins))) + 1

    def detector_positions_mm(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Bin centres along the detector from the central ray: float64 [bins], mm."""
        bins = torch.arange(self.detector_count, dtype=torch.float64, device=device)
        return (bins - (self.detector_count - 1) / 2 + self.detector_offset_bins) * self.detector_pitch_mm

    def rays(self, first_view: int, last_view: int, device: torch.device | str = "cpu") -> Rays:
        """The rays of views first .. last - 1, view by view and bin by bin; float64."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `geometry_from_dict` reads them back."""
        fields = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }
        return {"kind": self.kind, **fields}

    def _shadow_half_width_mm(self) -> float:
        """Half the width, on the detector, of the shadow of the disc that holds the image grid."""
        raise NotImplementedError

    def axes(
        self, first_view: int, last_view: int, device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Detector axis u and central direction d of the views, [views, 1, 2] each."""
        angles = torch.tensor(self.view_angles_rad[first_view:last_view], dtype=torch.float64, device=device)
        cos, sin = angles.cos(), angles.sin()
        return torch.stack([cos, sin], dim=-1)[:, None], torch.stack([-sin, cos], dim=-1)[:, None]

    def _coerce(self, field: str, convert: Any) -> None:
        try:
            object.__setattr__(self, field, convert(getattr(self, field)))
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"The scan geometry is not usable: {field} cannot be read ({error}).") from error

    def _require_positive(self, field: str) -> None:
        value = getattr(self, field)
        _require(math.isfinite(value) and value > 0, f"{field} is {value}: it must be positive and finite")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelGeometry(ScanGeometry):
    """Parallel rays along d, bins along u: bin position t measures the line x cos b + y sin b = t."""

    kind: ClassVar[str] = "parallel"
    full_arc_deg: ClassVar[float] = 180.0

    def rays(self, first_view: int, last_view: int, device: torch.device | str = "cpu") -> Rays:
        """The rays of views first .. last - 1, view by view and bin by bin; float64."""
        u, d = self.axes(first_view, last_view, device)
        point = self.detector_positions_mm(device)[:, None] * u
        return Rays(point.reshape(-1, 2), d.expand_as(point).reshape(-1, 2))

    def _shadow_half_width_mm(self) -> float:
        return self.image_radius_mm


@dataclasses.dataclass(frozen=True, kw_only=True)
class FanGeometry(ScanGeometry):
    """What both fans have: a source at -source_to_isocentre_mm * d, outside the disc that holds the image."""

    source_to_isocentre_mm: float = DEFAULT_SOURCE_TO_ISOCENTRE_MM
    source_to_detector_mm: float = DEFAULT_SOURCE_TO_DETECTOR_MM
    """Along the central ray; at least `source_to_isocentre_mm` (equal: a detector through the isocentre)."""

    full_arc_deg: ClassVar[float] = 360.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("source_to_isocentre_mm")
        self._require_positive("source_to_detector_mm")
        _require(
            self.source_to_detector_mm >= self.source_to_isocentre_mm,
            f"source_to_detector_mm ({self.source_to_detector_mm}) is less than source_to_isocentre_mm "
            f"({self.source_to_isocentre_mm})",
        )
        _require(
            self.source_to_isocentre_mm > self.image_radius_mm,
            f"source_to_isocentre_mm ({self.source_to_isocentre_mm}) puts the source inside the image, which "
            f"reaches {self.image_radius_mm:.1f} mm from the isocentre",
        )

    @property
    def magnification(self) -> float:
        """Size on the detector over size at the isocentre."""
        return self.source_to_detector_mm / self.source_to_isocentre_mm

    def fan_angles_rad(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Angle of every bin's ray from the central ray, positive towards u: float64 [bins]."""
        raise NotImplementedError

    def ray_lengths_mm(self) -> torch.Tensor:
        """From the source to every bin: float64 [bins]."""
        raise NotImplementedError

    def rays(self, first_view: int, last_view: int, device: torch.device | str = "cpu") -> Rays:
        """The rays of views first .. last - 1, view by view and bin by bin; float64."""
        u, d = self.axes(first_view, last_view, device)
        fan_angle = self.fan_angles_rad(device)[:, None]
        direction = fan_angle.cos() * d + fan_angle.sin() * u
        source = (-self.source_to_isocentre_mm * d).expand_as(direction)
        return Rays(source.reshape(-1, 2), direction.reshape(-1, 2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FanFlatGeometry(FanGeometry):
    """A fan on a flat detector: bins equally spaced along u."""

    kind: ClassVar[str] = "fan-flat"

    def fan_angles_rad(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Angle of every bin's ray from the central ray, positive towards u: float64 [bins]."""
        return torch.atan(self.detector_positions_mm(device) / self.source_to_detector_mm)

    def ray_lengths_mm(self) -> torch.Tensor:
        """From the source to every bin: float64 [bins]."""
        return torch.hypot(
            self.detector_positions_mm(), torch.tensor(self.source_to_detector_mm, dtype=torch.float64)
        )

    def _shadow_half_width_mm(self) -> float:
        return self.source_to_detector_mm * math.tan(math.asin(self.image_radius_mm / self.source_to_isocentre_mm))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FanCurvedGeometry(FanGeometry):
    """A fan on a detector curved about the source: bins equally spaced in angle, pitch / distance apart."""

    kind: ClassVar[str] = "fan-curved"

    def __post_init__(self) -> None:
        super().__post_init__()
        widest = float(self.fan_angles_rad().abs().max())
        _require(
            widest < math.pi / 2,
            f"detector_count * detector_pitch_mm reaches {math.degrees(widest):.0f} degrees from the central "
            "ray, 90 or more",
        )

    def fan_angles_rad(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Angle of every bin's ray from the central ray, positive towards u: float64 [bins]."""
        return self.detector_positions_mm(device) / self.source_to_detector_mm

    def ray_lengths_mm(self) -> torch.Tensor:
        """From the source to every bin: float64 [bins]."""
        return torch.full((self.detector_count,), self.source_to_detector_mm, dtype=torch.float64)

    def _shadow_half_width_mm(self) -> float:
        return self.source_to_detector_mm * math.asin(self.image_radius_mm / self.source_to_isocentre_mm)


GEOMETRIES: dict[str, type[ScanGeometry]] = {
    geometry.kind: geometry for geometry in (ParallelGeometry, FanFlatGeometry, FanCurvedGeometry)
}


def geometry_from_dict(values: Mapping[str, Any]) -> ScanGeometry:
    """The geometry that `ScanGeometry.to_dict` wrote; raises `InputError` for an unknown kind or field."""
    fields = dict(values)
    kind = fields.pop("kind", None)
    if kind not in GEOMETRIES:
        raise InputError(f"Unknown scan geometry {kind!r}; it is one of {', '.join(GEOMETRIES)}.")
    try:
        return GEOMETRIES[kind](**fields)
    except TypeError as error:
        raise InputError(f"The stored {kind} geometry does not have the expected fields: {error}.") from error


def _whole_number(value: Any) -> int:
    if int(value) != value:
        raise ValueError(f"{value} is not a whole number")
    return int(value)


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise InputError(f"The scan geometry is not usable: {sentence}.")
