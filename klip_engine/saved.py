"""Results on disk, and what they would mark at another rate of false alarms. Needs no network and no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from klip_engine.detection import Finding
from klip_engine.errors import InputError, KlipError
from klip_engine.io.findings_file import read_findings
from klip_engine.io.results import WORKING_SCORE_FILE
from klip_engine.marking import Marked, SourceSlices, mark
from klip_engine.scoring.null import NullDistribution, check_rate
from klip_engine.volume import FloatArray, Geometry
from klip_engine.working_grid import labels_from_working_grid


@dataclass(frozen=True)
class SavedResults:
    """What `klip_engine.io.write_results` wrote.

    folder: where; document: findings.json; geometry: the grid of the maps in `folder`; working_score: float32
    [z, y, x] on `working_geometry`, 0 outside the body; null: what is usual, fitted to this scan; source_slices:
    behind each working slice.
    """

    folder: Path
    document: dict[str, Any]
    geometry: Geometry
    working_score: FloatArray
    working_geometry: Geometry
    source_slices: SourceSlices
    null: NullDistribution

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings as they were written."""
        return tuple(Finding.from_dict(one) for one in self.document["findings"])

    @property
    def finest_rate(self) -> float:
        """The smallest rate of false alarms that can be told from zero; lower ones mark the same."""
        return self.null.finest_rate

    def at(self, false_alarms: float) -> Marked:
        """What a run with this rate of false alarms, from 0 to 1, would have marked; regions lie on `geometry`.

        Raises UsageError for a rate that is none.
        """
        check_rate(false_alarms)
        inside = self.working_score > 0
        marked = mark(
            self.working_score, inside, self.working_geometry, self.source_slices, self.null, false_alarms
        )
        if self.working_geometry == self.geometry:
            return marked
        regions = labels_from_working_grid(marked.regions, self.working_geometry, self.geometry)
        return replace(marked, regions=regions)


def open_results(folder: str | Path) -> SavedResults:
    """Open the results in a folder.

    Raises InputError where they are not there, not complete, of another schema, or of an engine that did not
    keep what marking again needs.
    """
    folder = Path(folder)
    document = read_findings(folder)
    try:
        working = sitk.ReadImage(str(folder / WORKING_SCORE_FILE), sitk.sitkFloat32)
        slices = document["working_slices"]
        return SavedResults(
            folder,
            document,
            _geometry_of(folder / "klip.nrrd"),
            sitk.GetArrayFromImage(working),
            Geometry.of(working),
            None if slices is None else tuple((first, last) for first, last in slices),
            NullDistribution(tuple(document["null"]["maxima"]), (), {}),
        )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, KlipError) as error:
        raise InputError(f"the results in {folder} are not complete or damaged; run the detection again") from error


def _geometry_of(path: Path) -> Geometry:
    """The geometry of a volume file, from its header alone."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return Geometry.of(reader)
