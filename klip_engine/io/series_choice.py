"""Which of the CT series of a study is read: rules in a fixed order, and for every other series the reason.

A rule passes over the series that break it, unless all that are left do. So the order of the rules is what
matters, and the same files always give the same series.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from klip_engine.errors import InputError, UsageError
from klip_engine.io.kernels import Sharpness, sharpness
from klip_engine.io.series_facts import Series
from klip_engine.words import counted

THIN_ENOUGH_MM = 5.0
"""Slices farther apart are passed over: a prior of 3 mm slices would see mostly interpolation."""
COVERED_SHARE = 0.5
"""A series that covers less than this share of the longest is a test bolus or a detail."""
_ROUNDING_MM = 0.05
_PICTURES = {
    "MIP",
    "MINIP",
    "MAX_IP",
    "MIN_IP",
    "AVERAGE_IP",
    "VRT",
    "VOLUME_RENDER",
    "SURFACE_RENDER",
    "CURVED_MPR",
    "PROJECTION IMAGE",
    "SCREEN SAVE",
    "DOSE_INFO",
    "DOSE INFO",
    "BONE_SUBTRACTED",
}
"""Values of ImageType that scanners give to pictures made from a scan."""
_LISTED = 8

Rule = Callable[[Series, Sequence[Series]], str]
"""Why a series is passed over, given all that are left; empty where it is not."""


@dataclass(frozen=True)
class Choice:
    """chosen: the series to read; reasons: every series in the order of their numbers, and why it is not
    read, empty for the chosen one."""

    chosen: Series
    reasons: tuple[tuple[Series, str], ...]

    @property
    def others(self) -> tuple[tuple[Series, str], ...]:
        """All but the chosen one."""
        return tuple((series, reason) for series, reason in self.reasons if series is not self.chosen)

    @property
    def notice(self) -> str:
        """What was chosen and why not the others, for the result."""
        series = self.chosen
        facts = [series.plane, counted(series.count, "slice")]
        facts += [f"{series.spacing_mm:.2f} mm apart"] if series.spacing_mm else []
        facts += [f"kernel {series.kernel}"] if series.kernel else []
        reasons = [f"{self._named(other)} ({reason})" for other, reason in self.others[:_LISTED]]
        if len(self.others) > _LISTED:
            reasons.append(f"and {len(self.others) - _LISTED} more, which `klip-engine info` lists")
        return (
            f"Of {len(self.others) + 1} CT series, {self._named(series)} was read "
            f"({', '.join(fact for fact in facts if fact)}). Left out: {', '.join(reasons)}."
        )

    def _named(self, series: Series) -> str:
        """By its number, and by its hash where others have the same number."""
        numbers = [other.number for other, _ in self.reasons]
        return f"number {series.number}" + (f" {series.key}" if numbers.count(series.number) > 1 else "")


def choose_series(found: Sequence[Series], wanted: str | None, name: str) -> Choice:
    """The series to read from `name`. wanted: SeriesInstanceUID, series number, or the hash `info` shows.

    Raises UsageError when `wanted` is not there or not unique.
    """
    ordered = sorted(found, key=_order)
    if wanted is not None:
        chosen = _wanted(ordered, wanted, name)
        return Choice(chosen, tuple((one, "" if one is chosen else "another was asked for") for one in ordered))
    left = ordered
    reasons: dict[int, str] = {}
    for rule in RULES:
        verdicts = [(series, rule(series, left)) for series in left]
        passing = [series for series, reason in verdicts if not reason]
        if passing:
            reasons |= {id(series): reason for series, reason in verdicts if reason}
            left = passing
    chosen = left[0]
    reasons |= {id(series): f"as good, but number {chosen.number} comes first" for series in left[1:]}
    return Choice(chosen, tuple((one, reasons.get(id(one), "")) for one in ordered))


def _wanted(found: Sequence[Series], wanted: str, name: str) -> Series:
    matches = [series for series in found if wanted in (series.uid, series.number, series.key)]
    if not matches:
        numbers = ", ".join(dict.fromkeys(series.number for series in found))
        raise UsageError(
            f"{name} holds no CT series with the UID, number or hash {wanted}; its series numbers are: {numbers}"
        )
    if len(matches) > 1:
        raise UsageError(
            f"{name} has {len(matches)} CT series with number {wanted}; choose by SeriesInstanceUID, "
            "or by the hash `klip-engine info` shows"
        )
    return matches[0]


def _is_scan(series: Series, left: Sequence[Series]) -> str:
    if not series.slices and all(file.is_localizer for file in series.files):
        return "localizer, a scout view"
    return "a picture made from a scan" if _PICTURES & set(series.image_type) else ""


def _is_volume(series: Series, left: Sequence[Series]) -> str:
    return "its slices make no complete volume" if isinstance(series.problem, InputError) else ""


def _is_axial(series: Series, left: Sequence[Series]) -> str:
    return "" if series.plane == "axial" else series.plane or "place unknown"


def _covers_enough(series: Series, left: Sequence[Series]) -> str:
    longest = max(other.coverage_mm for other in left)
    is_short = series.coverage_mm < COVERED_SHARE * longest
    return f"covers only {series.coverage_mm:.0f} mm" if is_short else ""


def _is_original(series: Series, left: Sequence[Series]) -> str:
    return "derived images" if {"DERIVED", "SECONDARY"} & set(series.image_type[:2]) else ""


def _is_thin(series: Series, left: Sequence[Series]) -> str:
    spacing = series.spacing_mm or 0.0
    return f"slices {spacing:.1f} mm apart" if spacing > THIN_ENOUGH_MM + _ROUNDING_MM else ""


def _is_soft(series: Series, left: Sequence[Series]) -> str:
    family = sharpness(series.kernel)
    if family == min(sharpness(other.kernel) for other in left):
        return ""
    return f"sharp kernel {series.kernel}" if family is Sharpness.SHARP else "kernel not known to be soft"


def _has_most_slices(series: Series, left: Sequence[Series]) -> str:
    return f"only {counted(series.count, 'slice')}" if series.count < max(other.count for other in left) else ""


RULES: tuple[Rule, ...] = (
    _is_scan,
    _is_volume,
    _is_axial,
    _covers_enough,  # before what is derived: some scanners call whole scans so, and a test bolus is an original
    _is_original,
    _is_thin,
    _is_soft,
    _has_most_slices,
)
"""In the order they are applied."""


def _order(series: Series) -> tuple[bool, int, str]:
    """By series number, those without one last, then by UID."""
    number = series.number
    is_number = number.lstrip("-").isdecimal()
    return not is_number, int(number) if is_number else 0, series.uid
