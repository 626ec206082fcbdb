"""The results of `write_results`, read back for DICOM: both ways of making objects start from the same files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from klip_engine.detection import Finding, SliceScore
from klip_engine.errors import InputError
from klip_engine.io.atomic import FINDINGS_FILE
from klip_engine.io.findings_file import read_findings
from klip_engine.volume import FloatArray, Geometry


@dataclass(frozen=True)
class WrittenResults:
    """document: findings.json; score: float32 and regions: label map uint16, both [z, y, x] on `geometry`;
    findings and threshold: what the regions mark, the strongest first."""

    document: dict[str, Any]
    geometry: Geometry
    score: FloatArray
    regions: npt.NDArray[np.uint16]
    findings: tuple[Finding, ...]
    threshold: float | None

    @cached_property
    def slices(self) -> tuple[SliceScore, ...]:
        """The score of each working slice; those whose score is not known are left out."""
        found = (SliceScore(**one) for one in self.document.get("slices", []))
        return tuple(one for one in found if one.score is not None)

    @cached_property
    def labels_of_slices(self) -> tuple[frozenset[int], ...]:
        """The labels on each slice, without 0."""
        return tuple(frozenset(np.flatnonzero(np.bincount(p.ravel())).tolist()) - {0} for p in self.regions)

    @cached_property
    def marked(self) -> tuple[Finding, ...]:
        """The findings with a voxel in `regions`: a small one may fall between the slices of a coarse input."""
        present = frozenset().union(*self.labels_of_slices)
        return tuple(finding for finding in self.findings if finding.label in present)


def read_written(folder: Path) -> WrittenResults:
    """Read the results in a folder. Raises InputError where they are not complete, or are of a photograph or of
    projections."""
    document = read_findings(folder)
    if "projections" in document.get("input", {}):
        raise InputError(
            f"{folder} is the result of CT projections, which no DICOM series belongs to: open its volumes "
            "(reconstruction.nrrd, regions.nrrd) in a viewer, or detect on the scanner's own images"
        )
    if not (folder / "regions.nrrd").exists():
        raise InputError(f"{folder} is the result of a photograph or not complete; DICOM needs the result of a CT")
    geometry, score = _volume(folder / "klip.nrrd", np.float32)
    regions_geometry, regions = _volume(folder / "regions.nrrd", np.uint16)
    if regions_geometry != geometry:
        raise InputError(f"klip.nrrd and regions.nrrd in {folder} do not belong together; run the detection again")
    try:
        findings = tuple(Finding.from_dict(one) for one in document["findings"])
        written = WrittenResults(document, geometry, score, regions, findings, document["threshold"])
        _ = written.slices  # damage is said here, not where they are first used
        return written
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / FINDINGS_FILE} is damaged; run the detection again") from error


def _volume(path: Path, kind: type[np.generic]) -> tuple[Geometry, npt.NDArray[Any]]:
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path} is missing or damaged; run the detection again") from error
    return Geometry.of(image), sitk.GetArrayFromImage(image).astype(kind, copy=False)
