"""Measured slices: sinograms of parallel or fan beams that share one geometry, at known heights in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from klip_engine.errors import InputError
from klip_engine.operators import FanGeometry, ScanGeometry
from klip_engine.volume import FloatArray, Geometry


@dataclass(frozen=True)
class MeasuredSlices:
    """geometry: of every slice; its image grid means nothing before `on_grid`, and its isocentre lies at
    `isocentre_mm`, LPS (x, y). line_integrals: float32 [slice, view, bin], no unit; weights: of the same shape,
    their inverse variance, 0 where nothing was measured. positions_mm: LPS z of each slice, ascending.
    volume_hint: the grid the data's own reconstruction lies on, where known. notices: what the user should know.
    Raises InputError where the parts do not fit together or nothing was measured.
    """

    geometry: ScanGeometry
    line_integrals: FloatArray
    weights: FloatArray
    positions_mm: tuple[float, ...]
    isocentre_mm: tuple[float, float]
    mu_water_per_mm: float
    volume_hint: Geometry | None = None
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expected = (len(self.positions_mm), len(self.geometry.view_angles_rad), self.geometry.detector_count)
        if self.line_integrals.shape != expected or self.weights.shape != expected:
            raise InputError(
                f"the slices' line integrals are {list(self.line_integrals.shape)} and their weights "
                f"{list(self.weights.shape)}, but {list(expected)} (slices, views, bins) are described"
            )
        if not (self.weights > 0).any():
            raise InputError("the projections hold no measured ray: all of their weights are 0")

    def __len__(self) -> int:
        return len(self.positions_mm)

    @cached_property
    def full_field_mm(self) -> float:
        """Radius of the disc about the isocentre that every view sees whole, between its outermost bins."""
        ends = self.geometry.detector_positions_mm()[[0, -1]]
        if isinstance(self.geometry, FanGeometry):
            ends = self.geometry.source_to_isocentre_mm * self.geometry.fan_angles_rad()[[0, -1]].sin()
        return float(min(max(-float(ends[0]), 0.0), max(float(ends[1]), 0.0)))

    @cached_property
    def widest_field_mm(self) -> float:
        """Radius of the disc that some view's outermost bin touches: larger where the detector is shifted."""
        ends = self.geometry.detector_positions_mm()[[0, -1]]
        if isinstance(self.geometry, FanGeometry):
            ends = self.geometry.source_to_isocentre_mm * self.geometry.fan_angles_rad()[[0, -1]].sin()
        return float(ends.abs().max())

    def on_grid(
        self, image_shape: tuple[int, int], pixel_mm: float, centre_lps_mm: tuple[float, float]
    ) -> ScanGeometry:
        """The geometry with an image grid whose middle lies at LPS (x, y)."""
        centre = (centre_lps_mm[0] - self.isocentre_mm[0], centre_lps_mm[1] - self.isocentre_mm[1])
        return replace(self.geometry, image_shape=image_shape, pixel_spacing_mm=pixel_mm, image_centre_mm=centre)

    def averaged(self, groups: Sequence[tuple[int, int]]) -> MeasuredSlices:
        """One slice for each range [first, last): the weighted mean of its line integrals."""
        data, weights = self.line_integrals, self.weights
        total = np.stack([weights[first:last].sum(axis=0) for first, last in groups])
        mean = np.stack([(weights[first:last] * data[first:last]).sum(axis=0) for first, last in groups])
        positions = tuple(float(np.mean(self.positions_mm[first:last])) for first, last in groups)
        return replace(self, line_integrals=_over(mean, total), weights=total, positions_mm=positions)

    def coarser(self, bins: int, views: int = 1) -> MeasuredSlices:
        """Neighbouring bins, and consecutive views, averaged by so many; those left over at the end are dropped."""
        geometry = self.geometry
        count, turns = geometry.detector_count // bins, len(geometry.view_angles_rad) // views
        blocks = (len(self), turns, views, count, bins)
        weights = self.weights[:, : turns * views, : count * bins]
        data = self.line_integrals[:, : turns * views, : count * bins]
        total = weights.reshape(blocks).sum(axis=(2, 4))
        mean = _over((weights * data).reshape(blocks).sum(axis=(2, 4)), total)
        angles = np.unwrap(geometry.view_angles_rad)[: turns * views].reshape(turns, views).mean(axis=1)
        dropped = geometry.detector_count - count * bins
        coarser = replace(
            geometry,
            view_angles_rad=tuple(angles.tolist()),
            detector_count=count,
            detector_pitch_mm=geometry.detector_pitch_mm * bins,
            detector_offset_bins=(geometry.detector_offset_bins - dropped / 2) / bins,
        )
        return replace(self, geometry=coarser, line_integrals=mean, weights=total)

    def variance_mm2(self, model_variance_mm2: float) -> FloatArray:
        """Of the line integrals in mm of water, float32 [slice, view, bin]: that of the weights and of what the
        model cannot show; inf where nothing was measured."""
        measured = self.weights > 0
        noise = 1 / np.where(measured, self.weights * self.mu_water_per_mm**2, 1)
        variance: FloatArray = np.where(measured, noise + model_variance_mm2, np.inf).astype(np.float32)
        return variance

    def filled(self) -> FloatArray:
        """Line integrals with what was not measured taken from the nearest measured bins of the same view, linear
        in between: what filtered back-projection needs, which knows no weights."""
        if (self.weights > 0).all():
            return self.line_integrals
        filled = self.line_integrals.copy()
        bins = np.arange(filled.shape[-1])
        measured = self.weights > 0
        for place in np.argwhere(~measured.all(axis=-1)):
            row, there = filled[tuple(place)], measured[tuple(place)]
            row[~there] = np.interp(bins[~there], bins[there], row[there]) if there.any() else 0
        return filled


def _over(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Their quotient, 0 where the denominator is."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
