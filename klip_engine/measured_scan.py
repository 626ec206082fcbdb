"""Measured projections as the posterior sampler takes them, and as settings a simulation can repeat them from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from klip_engine.body import body_mask
from klip_engine.errors import InputError, UsageError
from klip_engine.io import LoadedCT
from klip_engine.io.projections import facts
from klip_engine.operators import CTOperator, FanGeometry
from klip_engine.presets import SCAN_SAMPLING
from klip_engine.priors import PriorBundle
from klip_engine.projections import Projections
from klip_engine.samplers import Measurement
from klip_engine.scans import (
    FEW_VIEWS,
    Doubt,
    MeasuredSlices,
    doubts_about,
    even_images,
    reconstruct,
    to_slices,
)
from klip_engine.settings import MEASURED, DetectionSettings, OperatorSettings, SamplingSettings
from klip_engine.volume import AIR_HU, FloatArray, Geometry
from klip_engine.working_grid import WorkingVolume

MODEL_SIGMA_PIXELS = 1 / 3
"""What a working image cannot reproduce of a ray even without noise, in pixels' lengths of water: edges within its
pixels. Measured on a chest phantom of ellipsoids: 1.6, 1.0 and 0.8 mm for pixels of 5, 3 and 2 mm."""
_RAYS_PER_PIXEL = 1.5
"""Bins and views finer than this against the working pixels are averaged: they say the same several times."""
_DENSEST = 2.0
"""Attenuation over that of water, 1000 HU. Priors of CT show no more (`images_of_hu`): what is denser is subtracted
from the data."""
_SLICES_AT_ONCE = 8


@dataclass(frozen=True)
class MeasuredScanner:
    """Gives out what was measured. data: in mm of water about images of 0 HU, and variance, inf where nothing was
    measured; both float32 [slice, views, bins]."""

    operator: CTOperator
    data: FloatArray
    variance: FloatArray

    def measure(self, images: torch.Tensor, slices: Sequence[int]) -> Measurement:
        """The measurements of the slices with these numbers, on the images' device."""
        chosen = list(slices)
        data, variance = (torch.from_numpy(part[chosen]).to(images.device) for part in (self.data, self.variance))
        return Measurement(self.operator, data, variance)


def measured_slices(
    projections: Projections,
    prior: PriorBundle,
    *,
    trust_geometry: bool = False,
    warn: Callable[[str], None] | None = None,
) -> MeasuredSlices:
    """What was measured of each axial slice of a prior's thickness, with what its consistency makes doubtful.

    warn: is called with each sentence about what does not fit, before anything long begins.
    Raises InputError for scans that cannot be taken slice by slice, for a prior of photographs, and where the data
    contradict the geometry, unless that is to be trusted: then the notices say so.
    """
    if prior.grid is None:
        raise InputError(
            f"these are CT projections, but the prior '{prior.name}' is of photographs; name a prior of CT"
        )
    doubts = doubts_about(projections)
    if not trust_geometry:
        refuse_contradiction(projections, doubts)
    sentences = [doubt.sentence for doubt in doubts]
    if any(doubt.decisive for doubt in doubts):
        sentences.append(
            "The geometry was trusted against the data, as was asked for: what follows is no more than what that "
            "geometry makes of them."
        )
    for sentence in sentences:
        (warn or _warn)(sentence)
    slices = to_slices(projections, slice_mm=prior.grid.slice_mm)
    return replace(slices, notices=(*slices.notices, *sentences))


class GeometryWarning(UserWarning):
    """Projections do not fit the geometry they come with."""


def refuse_contradiction(projections: Projections, doubts: Sequence[Doubt]) -> None:
    """Raise InputError where the data contradict their geometry, with what to check."""
    for doubt in doubts:
        if doubt.decisive:
            name = projections.description.get("file") or "this scan"
            what = doubt.sentence[:1].lower() + doubt.sentence[1:].rstrip(".")
            raise InputError(
                f"{name} contradicts its own geometry: {what}; correct the geometry (order and sign of the view "
                "angles, direction of the columns, central element), or have it taken as it is with "
                "--trust-geometry (in Python trust_geometry=True)"
            )


def _warn(sentence: str) -> None:
    warnings.warn(sentence, GeometryWarning, stacklevel=4)


def first_image(projections: Projections, slices: MeasuredSlices) -> LoadedCT:
    """The filtered back-projection: the volume on whose grid the results of projections are given."""
    volume = reconstruct(slices)
    described = {"format": "projections"} | projections.description
    size, spacing = volume.geometry.size, volume.geometry.spacing
    described |= {"size": list(size), "slices": size[2], "spacing_mm": [round(v, 6) for v in spacing]}
    described |= {"projections": facts(projections)}
    return LoadedCT(volume, described, (*projections.notices, *slices.notices))


def for_measured(settings: DetectionSettings, slices: MeasuredSlices, pixel_mm: float) -> DetectionSettings:
    """The settings for what a scanner measured: its own operator, and sampling that suits scans unless another was
    asked for.

    Raises UsageError for settings that ask for another operator than a volume's default.
    """
    if settings.operator != OperatorSettings() and settings.operator.name != MEASURED:
        raise UsageError(
            "CT projections bring their own views and noise: leave out --operator, --views and presets of other "
            "measurements"
        )
    sampling = SCAN_SAMPLING if settings.sampling == SamplingSettings() else settings.sampling
    return replace(settings, operator=scan_settings(slices, pixel_mm), sampling=sampling)


def measured_scanner(slices: MeasuredSlices, working: WorkingVolume) -> tuple[WorkingVolume, MeasuredScanner]:
    """The scanner of a working volume made from `reconstruct(slices)`, and that volume, with a better outline.

    What the working images leave out (table, arms, whatever is denser than a prior shows) is taken from images of
    the whole field of view (`even_images`), projected and subtracted; where there are few views, so is the body's
    outline: filtered back-projection frays it.
    """
    pixel = working.geometry.spacing[0]
    coarse = for_pixels(_of_working_slices(slices, working), pixel)
    scan = coarse.on_grid(working.hu.shape[1:], pixel, _middle(working.geometry))
    operator = CTOperator(scan)
    field = _WholeField.of(coarse, working)
    if len(coarse.geometry.view_angles_rad) <= FEW_VIEWS:
        working = field.outlined(working)
    data = coarse.line_integrals / np.float32(coarse.mu_water_per_mm)
    data = data - operator.forward(torch.ones(1, 1, *scan.image_shape)).numpy()
    data = data - field.projected_outside(coarse, working)
    variance = coarse.variance_mm2(_model_sigma_mm(pixel) ** 2)
    return working, MeasuredScanner(operator, np.where(coarse.weights > 0, data, 0).astype(np.float32), variance)


def scan_settings(slices: MeasuredSlices, pixel_mm: float) -> OperatorSettings:
    """The scan in numbers, for the result and for the null distribution, which is simulated from them.

    The view angles of a full turn are turned to begin at 0 and the dose is rounded to half a doubling: scans that
    differ in nothing that matters share a null distribution.
    """
    coarse = for_pixels(slices, pixel_mm)
    geometry = coarse.geometry
    angles = np.unwrap(geometry.view_angles_rad)
    steps = np.diff(angles)
    turns = len(angles) * float(np.mean(steps)) / (2 * math.pi) if len(angles) > 1 else 0.0
    if len(angles) > 1 and np.ptp(steps) < 1e-3 * abs(steps.mean()) and abs(abs(turns) - round(abs(turns))) < 1e-3:
        angles = angles - angles[0]
    rounded = replace(
        geometry,
        view_angles_rad=tuple(round(float(angle), 7) for angle in angles),
        detector_offset_bins=round(geometry.detector_offset_bins, 3),
        image_shape=(1, 1),
        image_centre_mm=(0.0, 0.0),
    )
    described = {
        "geometry": rounded.to_dict(),
        "i0": _rounded_i0(_effective_i0(coarse)),
        "mu_water_per_mm": slices.mu_water_per_mm,
        "model_sigma_mm": _model_sigma_mm(pixel_mm),
    }
    return OperatorSettings(MEASURED, scan=described)


def for_pixels(slices: MeasuredSlices, pixel_mm: float) -> MeasuredSlices:
    """The slices with bins and evenly spaced views averaged to what pixels of this size can tell apart."""
    geometry = slices.geometry
    bin_mm = geometry.detector_pitch_mm / geometry.magnification
    bins = max(1, int(pixel_mm / _RAYS_PER_PIXEL / bin_mm))
    steps = np.diff(np.unwrap(geometry.view_angles_rad))
    views = 1
    if len(steps) and np.ptp(steps) < 0.02 * abs(float(steps.mean())):
        # At the rim of the field a view step moves a pixel by its angle times the radius.
        step_mm = abs(float(steps.mean())) * slices.widest_field_mm
        views = max(1, int(pixel_mm / _RAYS_PER_PIXEL / step_mm))
        while len(geometry.view_angles_rad) % views:
            views -= 1
    return slices if bins == views == 1 else slices.coarser(bins, views)


def _model_sigma_mm(pixel_mm: float) -> float:
    return round(MODEL_SIGMA_PIXELS * pixel_mm, 4)


def _effective_i0(slices: MeasuredSlices) -> float:
    """Photons per ray behind the weights, bins and views averaged."""
    measured = slices.weights > 0
    i0 = float(np.median(slices.weights[measured] * np.exp(slices.line_integrals[measured])))
    return min(i0, 1e9)


def _rounded_i0(i0: float) -> float:
    return float(f"{1e6 * 2 ** (round(2 * math.log2(i0 / 1e6)) / 2):.2g}")


def _of_working_slices(slices: MeasuredSlices, working: WorkingVolume) -> MeasuredSlices:
    groups = working.source_slices or tuple((i, i + 1) for i in range(len(slices)))
    return slices.averaged(groups)


def _middle(grid: Geometry) -> tuple[float, float]:
    middle = grid.to_lps(((grid.size[0] - 1) / 2, (grid.size[1] - 1) / 2, 0))
    return float(middle[0]), float(middle[1])


@dataclass(frozen=True)
class _WholeField:
    """Everything that was in the beam: attenuation over that of water, [slice, y, x], on the working grid's pixels
    and `margin` more of them around it."""

    attenuation: FloatArray
    plane: Geometry
    margin: int

    @classmethod
    def of(cls, slices: MeasuredSlices, working: WorkingVolume) -> _WholeField:
        margin = _margin(slices, working)
        _, rows, columns = working.hu.shape
        pixel = working.geometry.spacing[0]
        x, y, _ = (float(place) for place in working.geometry.to_lps((-margin, -margin, 0)))
        plane = Geometry((columns + 2 * margin, rows + 2 * margin, 1), (pixel, pixel, 1.0), (x, y, 0.0))
        attenuation = np.empty((len(slices), plane.size[1], plane.size[0]), dtype=np.float32)
        for first in range(0, len(slices), _SLICES_AT_ONCE):
            numbers = range(first, min(first + _SLICES_AT_ONCE, len(slices)))
            few = slices.averaged([(number, number + 1) for number in numbers])
            attenuation[first : numbers.stop] = even_images(few, plane, _model_sigma_mm(pixel) ** 2)
        return cls(attenuation, plane, margin)

    def outlined(self, working: WorkingVolume) -> WorkingVolume:
        """The working volume with the body of these images; what was not body before shows their values."""
        rows, columns = (slice(self.margin, self.margin + size) for size in working.hu.shape[1:])
        hu = 1000 * (self.attenuation - 1)
        body = body_mask(hu, self.plane.spacing[0])[:, rows, columns]
        if not body.any():
            return working
        shown = np.where(working.body, working.hu, hu[:, rows, columns])
        return replace(working, hu=np.where(body, shown, np.float32(AIR_HU)), body=body)

    def projected_outside(self, slices: MeasuredSlices, working: WorkingVolume) -> FloatArray:
        """Line integrals, in mm of water, of what the working images do not hold: [slice, view, bin]."""
        shape = (self.plane.size[1], self.plane.size[0])
        operator = CTOperator(slices.on_grid(shape, self.plane.spacing[0], _middle(self.plane)))
        around = ((0, 0), (self.margin, self.margin), (self.margin, self.margin))
        body = np.pad(working.body, around)
        # Beside the body everything counts, within it what is denser than the working image can show.
        left_out = np.where(body, np.maximum(self.attenuation - _DENSEST, 0), self.attenuation)
        projected: FloatArray = operator.forward(torch.from_numpy(left_out)[:, None]).numpy()
        return projected


def _margin(slices: MeasuredSlices, working: WorkingVolume) -> int:
    """Pixels around the working grid that reach the end of the field of view, but not the source."""
    pixel = working.geometry.spacing[0]
    reach = slices.widest_field_mm
    if isinstance(slices.geometry, FanGeometry):
        reach = min(reach, 0.7 * slices.geometry.source_to_isocentre_mm)
    x, y = _middle(working.geometry)
    off_x, off_y = abs(x - slices.isocentre_mm[0]), abs(y - slices.isocentre_mm[1])
    half_x, half_y = 0.5 * pixel * working.hu.shape[2], 0.5 * pixel * working.hu.shape[1]
    return max(0, math.ceil(max(reach + off_x - half_x, reach + off_y - half_y) / pixel))
