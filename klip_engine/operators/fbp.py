"""Filtered back-projection of parallel and fan-beam scans, full or limited in angle, evenly spaced or not.

Kak and Slaney, "Principles of Computerized Tomographic Imaging", IEEE Press 1988, chapter 3: parallel beams
in section 3.3, equiangular fans (curved detector) in 3.4.1, equally spaced fans (flat detector) in 3.4.2.
"""

from __future__ import annotations

import dataclasses
import math

import torch

from klip_engine.errors import UsageError
from klip_engine.operators.geometry import FanCurvedGeometry, FanGeometry, ScanGeometry

FILTERS = ("ram-lak", "hann")

_WIDEST_TAPER_RAD = math.radians(10)
_OPEN_GAP_IN_MEDIAN_GAPS = 3.0
_WIDEST_FAN_RAD = 0.7
"""Half a fan up to which a curved detector is extended: twice this is still below a right angle."""
_SLOPE_BINS = 10
"""Over so many bins the slope at the end of a row is taken: neighbours alone are too noisy."""


def filtered_back_projection(
    sinogram: torch.Tensor, geometry: ScanGeometry, filter_name: str = "ram-lak", *, water: float | None = None
) -> torch.Tensor:
    """The image whose line integrals in mm are `sinogram`, in the image's unit.

    sinogram: [batch, views, bins], bins and views as in `geometry`. Returns [batch, 1, rows, columns] of the
    same type and device; differentiable.

    filter_name: "ram-lak" is the band-limited ramp of Kak and Slaney eq. (61); "hann" is the same under a
    Hann window that reaches 0 at the Nyquist frequency. Raises `UsageError` for any other.

    Views may stand at any angles: each counts for the angle up to halfway to its neighbours, and a gap of
    more than three usual steps counts as not measured. Rays measured twice share their weight and rays measured
    once keep it (Noo et al., Phys. Med. Biol. 47, 2002, 2525-2546), so that short scans and detectors shifted to
    one side need no care.

    water: what water is in the image's unit; where given, rows that end inside the object are continued as the
    shadow of a cylinder of water, see `_extrapolated`.
    """
    check_filter_name(filter_name)
    if water is not None:
        sinogram, geometry = _extrapolated(sinogram, geometry, water)
    weighted, geometry = _both_sides(sinogram * _ray_weights(geometry, sinogram), geometry)
    filtered = _filter_rows(weighted, geometry, filter_name)
    return _back_project(filtered, geometry)


def check_filter_name(filter_name: str) -> None:
    """Raises `UsageError` unless the name is one of `FILTERS`."""
    if filter_name not in FILTERS:
        raise UsageError(f"Unknown filter {filter_name!r}; it is one of {', '.join(FILTERS)}.")


def _extrapolated(
    sinogram: torch.Tensor, geometry: ScanGeometry, water: float
) -> tuple[torch.Tensor, ScanGeometry]:
    """The scan on a detector a quarter wider on either side, where each row goes on as the shadow of a cylinder.

    Hsieh et al., Med. Phys. 31, 2004, 2385-2391: height and slope at the end of a row fix the radius and the place
    of a cylinder of water; here it also fades out with a squared cosine. A row that ends in air goes on with 0. A
    detector shifted to one side is extended on the other side only: on its own, lines are seen from opposite.
    """
    extra = geometry.detector_count // 4
    if isinstance(geometry, FanCurvedGeometry):
        widest = float(geometry.fan_angles_rad().abs().max())
        step = geometry.detector_pitch_mm / geometry.source_to_detector_mm
        extra = max(0, min(extra, int((_WIDEST_FAN_RAD - widest) / step)))
    first, last = geometry.detector_positions_mm()[[0, -1]].tolist()
    left, right = (extra if end > 0.9 * max(-first, last) else 0 for end in (-first, last))
    pitch = geometry.detector_pitch_mm / geometry.magnification
    parts = [sinogram]
    if left:
        parts.insert(0, _cylinder(sinogram.flip(-1), left, water, pitch).flip(-1))
    if right:
        parts.append(_cylinder(sinogram, right, water, pitch))
    return torch.cat(parts, dim=-1), _widened(geometry, left, right)


def _cylinder(rows: torch.Tensor, count: int, water: float, pitch: float) -> torch.Tensor:
    """The next `count` values to the right of each row: chords of the cylinder that fits its end."""
    bins = min(_SLOPE_BINS, rows.shape[-1] // 3)
    end = rows[..., -3:].mean(dim=-1, keepdim=True).clamp(min=0)
    slope = (end - rows[..., -bins - 3 : -bins].mean(dim=-1, keepdim=True)) / (bins * pitch)
    from_axis = -end * slope.clamp(max=-0.05 * water) / (4 * water**2)
    radius_squared = (end / (2 * water)).square() + from_axis.square()
    step = torch.arange(1, count + 1).to(rows)
    chord = 2 * (radius_squared - (from_axis + step * pitch).square()).clamp(min=0).sqrt()
    return water * chord * torch.cos(step / (count + 1) * math.pi / 2).square()


def _both_sides(weighted: torch.Tensor, geometry: ScanGeometry) -> tuple[torch.Tensor, ScanGeometry]:
    """Rows of a detector shifted to one side, with bins of 0 on the other until both sides are equally wide.

    Filtered, these are not 0: the share that each side adds to a line reaches beyond where it was measured.
    """
    missing = round(2 * abs(geometry.detector_offset_bins))
    if missing < 2:
        return weighted, geometry
    sides = (missing, 0) if geometry.detector_offset_bins > 0 else (0, missing)
    return torch.nn.functional.pad(weighted, sides), _widened(geometry, *sides)


def _widened(geometry: ScanGeometry, left: int, right: int) -> ScanGeometry:
    """The same scan with so many more bins on either side."""
    return dataclasses.replace(
        geometry,
        detector_count=geometry.detector_count + left + right,
        detector_offset_bins=geometry.detector_offset_bins + (right - left) / 2,
    )


def _ray_weights(geometry: ScanGeometry, like: torch.Tensor) -> torch.Tensor:
    """Angle that each view stands for and, in a fan, redundancy and obliquity of each ray; [views, bins]."""
    angles = torch.tensor(geometry.view_angles_rad, dtype=torch.float64)
    weights = _angular_steps(angles, 2 * math.pi)[:, None] * _redundancy(geometry, angles)
    if isinstance(geometry, FanGeometry):
        # R cos(gamma) of 3.4.1 and R^2 / sqrt(R^2 + s^2) of 3.4.2 are the same function of the fan angle.
        weights = weights * geometry.source_to_isocentre_mm * geometry.fan_angles_rad().cos()
    return weights.to(like)


def _angular_steps(angles: torch.Tensor, period: float) -> torch.Tensor:
    """Half the gap to either neighbour, angles modulo `period`; a gap in the scan counts as a usual step."""
    order = angles.remainder(period).argsort()
    gap_after = _gaps(angles.remainder(period)[order], period)
    usual = _usual_gap(gap_after)
    gap_after = torch.where(gap_after > _OPEN_GAP_IN_MEDIAN_GAPS * usual, usual, gap_after)
    steps = torch.empty_like(angles)
    steps[order] = (gap_after + gap_after.roll(1)) / 2
    return steps


def _redundancy(geometry: ScanGeometry, angles: torch.Tensor) -> torch.Tensor:
    """Share of each ray in the sum of itself and the same line seen from the other side; [views, bins].

    Ray (b, gamma) runs along the same line as ray (b + pi - 2 gamma, -gamma), parallel ray (b, t) as (b + pi, -t).
    """
    fan_angle: torch.Tensor | float = geometry.fan_angles_rad() if isinstance(geometry, FanGeometry) else 0.0
    position = geometry.detector_positions_mm()
    own = _coverage(angles[:, None], angles) * _on_detector(position, geometry)
    opposite = _coverage(angles[:, None] + math.pi - 2 * fan_angle, angles) * _on_detector(-position, geometry)
    return own / (own + opposite)


def _on_detector(position: torch.Tensor, geometry: ScanGeometry) -> torch.Tensor:
    """1 where a detector shifted to one side measures a position, 0 beyond its ends, smooth in between; above 0 at
    every bin. The ramp is as wide as what both sides of the isocentre see (Wang, Med. Phys. 29, 2002,
    1634-1636)."""
    ends = geometry.detector_positions_mm()[[0, -1]] + geometry.detector_pitch_mm * torch.tensor([-0.5, 0.5])
    both_sides = float(torch.minimum(-ends[0], ends[1]))
    if both_sides < geometry.detector_pitch_mm:
        return ((position > ends[0]) & (position < ends[1])).double()
    from_nearest_end = torch.minimum(position - ends[0], ends[1] - position)
    return torch.sin(math.pi / 2 * (from_nearest_end / (2 * both_sides)).clamp(0, 1)).square()


def _coverage(at: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """1 where source angle `at` was measured, 0 where not, smooth in between; above 0 at every view."""
    turn = 2 * math.pi
    ordered = angles.remainder(turn).sort().values
    gaps = _gaps(ordered, turn)
    usual = _usual_gap(gaps)
    widest = int(gaps.argmax())
    if gaps[widest] <= _OPEN_GAP_IN_MEDIAN_GAPS * usual:
        return torch.ones_like(at)
    arc = turn - gaps[widest] + usual
    into_arc = (at - (ordered[(widest + 1) % len(ordered)] - usual / 2)).remainder(turn)
    taper = min(_WIDEST_TAPER_RAD, float(arc) / 4)
    from_nearest_end = torch.minimum(into_arc, arc - into_arc).clamp(0, taper)
    return torch.sin(math.pi / 2 * from_nearest_end / taper).square()


def _gaps(ordered: torch.Tensor, period: float) -> torch.Tensor:
    """From each angle to the next, and from the last around to the first."""
    return torch.diff(ordered, append=ordered[:1] + period)


def _usual_gap(gaps: torch.Tensor) -> torch.Tensor:
    return gaps[gaps > 1e-9].median()


def _filter_rows(rows: torch.Tensor, geometry: ScanGeometry, filter_name: str) -> torch.Tensor:
    """Each row [.., bins] through the ramp filter, padded so that nothing wraps around."""
    bins = geometry.detector_count
    length = 1 << (2 * bins - 1).bit_length()
    response = torch.fft.rfft(_ramp_kernel(geometry, length)).real
    if filter_name == "hann":
        response = response * (0.5 + 0.5 * torch.cos(2 * math.pi * torch.fft.rfftfreq(length, dtype=torch.float64)))
    return torch.fft.irfft(torch.fft.rfft(rows, n=length) * response.to(rows), n=length)[..., :bins]


def _ramp_kernel(geometry: ScanGeometry, length: int) -> torch.Tensor:
    """The ramp filter at bin distances 0, 1, .. and, from the end, -1, -2, ..; times the step between bins:
    float64.

    Kak and Slaney eq. (61); for an equiangular fan times (gamma / sin gamma)^2. Their factor 1/2 for fans,
    which every ray of a full turn needs because it is measured twice, is in the redundancy weights.
    """
    index = torch.arange(length, dtype=torch.float64)
    distance = torch.minimum(index, length - index)
    if isinstance(geometry, FanCurvedGeometry):
        step = geometry.detector_pitch_mm / geometry.source_to_detector_mm
        position = torch.sin(distance * step)
    else:
        step = geometry.detector_pitch_mm / geometry.magnification
        position = distance * step
    within_detector = distance < geometry.detector_count
    kernel = torch.where((distance % 2 == 1) & within_detector, -1 / (math.pi * position).square(), 0.0)
    kernel[0] = 1 / (4 * step**2)
    return kernel * step


def _back_project(filtered: torch.Tensor, geometry: ScanGeometry) -> torch.Tensor:
    """Sum over views of the filtered value where each pixel projects: linear between bins, 0 beyond them."""
    x, y = _pixel_centres_mm(geometry, filtered)
    image = filtered.new_zeros(len(filtered), len(x))
    for view, angle in enumerate(geometry.view_angles_rad):
        along_detector = math.cos(angle) * x + math.sin(angle) * y
        along_ray = -math.sin(angle) * x + math.cos(angle) * y
        bin_position, weight = _pixel_on_detector(geometry, along_detector, along_ray)
        image = image + weight * _interpolate(filtered[:, view], bin_position)
    return image.reshape(len(filtered), 1, *geometry.image_shape)


def _pixel_centres_mm(geometry: ScanGeometry, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = geometry.image_shape
    centre_x, centre_y = geometry.image_centre_mm
    y = centre_y + (torch.arange(rows).to(like) - (rows - 1) / 2) * geometry.pixel_spacing_mm
    x = centre_x + (torch.arange(columns).to(like) - (columns - 1) / 2) * geometry.pixel_spacing_mm
    return x.repeat(rows), y.repeat_interleave(columns)


def _pixel_on_detector(
    geometry: ScanGeometry, along_detector: torch.Tensor, along_ray: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bin position of each pixel's projection, and its distance weight.

    Distance weights: 1 / L^2 of 3.4.1 with L from source to pixel; 1 / U^2 of 3.4.2 with U the same distance
    along the central ray over R. The R that U brings into the denominator is divided out here for both.
    """
    position, weight = along_detector, torch.ones_like(along_detector)
    if isinstance(geometry, FanGeometry):
        from_source = geometry.source_to_isocentre_mm + along_ray
        if isinstance(geometry, FanCurvedGeometry):
            position = torch.atan2(along_detector, from_source) * geometry.source_to_detector_mm
            weight = 1 / (from_source.square() + along_detector.square())
        else:
            position = along_detector / from_source * geometry.source_to_detector_mm
            weight = geometry.source_to_isocentre_mm / from_source.square()
    bin_position = position / geometry.detector_pitch_mm - geometry.detector_offset_bins
    return bin_position + (geometry.detector_count - 1) / 2, weight


def _interpolate(values: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Values [batch, bins] at fractional bins [pixels], 0 outside: [batch, pixels]."""
    bins = values.shape[-1]
    lower = position.floor().clamp(-1, bins - 1)
    fraction = position - lower
    padded = torch.nn.functional.pad(values, (1, 1))
    below = padded.index_select(1, (lower + 1).long())
    above = padded.index_select(1, (lower + 2).long())
    return torch.lerp(below, above, fraction.clamp(0, 1))
