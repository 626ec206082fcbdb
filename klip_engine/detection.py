"""The result of a detection: arrays in the grid of the input, a score per slice, a table of findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from klip_engine.photograph import Photograph
from klip_engine.volume import AIR_HU, BoolArray, CTVolume, FloatArray, Geometry
from klip_engine.working_grid import from_working_grid, labels_from_working_grid

NOTICE = (
    "Research software, not a medical device. It must not be used for diagnosis or treatment: "
    "it misses lesions and marks healthy anatomy."
)
"""Shown wherever a result is shown."""


@dataclass(frozen=True)
class SliceScore:
    """How unusual one working slice is as a whole.

    index: the source slice nearest to its middle (for inputs that are not axial: the number of the resampled
    axial slice); position_mm: LPS z of its middle; p_value: the share of null slices with at least this score,
    None when no null distribution is known.
    """

    index: int
    position_mm: float
    score: float
    p_value: float | None


@dataclass(frozen=True)
class Finding:
    """One connected suspicious region.

    label: its value in the label map, 1 is the strongest; score: its highest score; p_value: the share of null
    slices whose maximum is at least that; centroid_lps_mm: score-weighted centre; slice_range: first and last
    index as in `SliceScore`. Of a photograph the centre is (column, row, 0) in pixels, and a ml a thousand pixels.
    """

    label: int
    score: float
    p_value: float | None
    centroid_lps_mm: tuple[float, float, float]
    volume_ml: float
    slice_range: tuple[int, int]

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Finding:
        """A finding from its entry in findings.json; raises KeyError or TypeError where that is none."""
        (x, y, z), (first, last) = values["centroid_lps_mm"], values["slice_range"]
        return Finding(
            values["label"], values["score"], values["p_value"], (x, y, z), values["volume_ml"], (first, last)
        )


@dataclass(frozen=True)
class WorkingResult:
    """Everything the method saw and produced, on the axial working grid [slice, y, x].

    measured: what was measured, in HU; reconstruction: posterior mean in HU; score: KLIP score, unitless;
    regions: label map uint16, 0 = nothing; body: the patient; source_slices: for each slice the range
    [first, last) of source slices behind it, None where the source is not axial. Of a photograph, measured and
    reconstruction are values from 0 to 255 [1, y, x, channels].
    """

    measured: FloatArray
    reconstruction: FloatArray
    score: FloatArray
    regions: npt.NDArray[np.uint16]
    body: BoolArray
    geometry: Geometry
    source_slices: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class Detection:
    """What `klip_engine.detect` returns; `klip_engine.io.write_results` writes it.

    geometry: the grid results are given in (the input's own); source: the input volume where there is one;
    threshold: score above which a block is suspicious; settings, prior, input and timing as in findings.json;
    notices: sentences the reader of the result should see; null_maxima: what p-values were counted on, the
    highest score of each usual slice, fitted to the level of this scan.
    """

    working: WorkingResult
    geometry: Geometry
    source: CTVolume | Photograph | None
    slices: tuple[SliceScore, ...]
    findings: tuple[Finding, ...]
    threshold: float
    prior: dict[str, Any]
    settings: dict[str, Any]
    input: dict[str, Any]
    timing: dict[str, Any]
    notices: tuple[str, ...] = field(default_factory=tuple)
    null_maxima: tuple[float, ...] = ()

    @cached_property
    def reconstruction(self) -> npt.NDArray[Any]:
        """Posterior mean in HU, int16 [z, y, x] on `geometry`; air outside the working grid."""
        rounded = np.rint(self.working.reconstruction.clip(-32768, 32767)).astype(np.int16)
        return from_working_grid(rounded, self.working.geometry, self.geometry, outside=AIR_HU)

    @cached_property
    def score(self) -> FloatArray:
        """KLIP score, float32 [z, y, x] on `geometry`; 0 outside the working grid."""
        return from_working_grid(self.working.score, self.working.geometry, self.geometry)

    @cached_property
    def regions(self) -> npt.NDArray[np.uint16]:
        """Label map of the findings, uint16 [z, y, x] on `geometry`; 0 = nothing."""
        return labels_from_working_grid(self.working.regions, self.working.geometry, self.geometry)


@dataclass(frozen=True)
class PhotographDetection(Detection):
    """The same for a photograph: everything already lies on the grid of the input."""

    @cached_property
    def reconstruction(self) -> npt.NDArray[Any]:
        """Posterior mean, uint8 [height, width, channels]."""
        return np.rint(self.working.reconstruction[0].clip(0, 255)).astype(np.uint8)

    @cached_property
    def score(self) -> FloatArray:
        """KLIP score, float32 [1, height, width]."""
        return self.working.score

    @cached_property
    def regions(self) -> npt.NDArray[np.uint16]:
        """Label map of the findings, uint16 [1, height, width]; 0 = nothing."""
        return self.working.regions
