"""Results as DICOM files: from the folder `write_results` wrote and the DICOM series it was made from."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from klip_engine.detection import Finding
from klip_engine.errors import InputError
from klip_engine.files import write_file
from klip_engine.io.dicom_headers import pseudonym
from klip_engine.io.dicom_results.composite import Context
from klip_engine.io.dicom_results.extra import structured_reporting
from klip_engine.io.dicom_results.objects import ALL, DicomObject
from klip_engine.io.dicom_results.parametric_map import parametric_map
from klip_engine.io.dicom_results.secondary_capture import secondary_capture
from klip_engine.io.dicom_results.segmentation import label_map, segmentation
from klip_engine.io.dicom_results.source import SourceSeries, read_source
from klip_engine.io.dicom_results.structured_report import structured_report
from klip_engine.io.dicom_results.uids import result_uids
from klip_engine.io.dicom_results.written import WrittenResults, read_written
from klip_engine.io.loaded import Loaded
from klip_engine.volume import slice_means

_MAKERS: dict[DicomObject, Callable[[Context], Dataset | None]] = {
    DicomObject.SEG: segmentation,
    DicomObject.SR: structured_report,
    DicomObject.PM: parametric_map,
    DicomObject.SC: secondary_capture,
    DicomObject.LABELMAP: label_map,
}


def write_dicom_results(
    results: WrittenResults | Path,
    source: Loaded,
    out: Path,
    objects: Sequence[DicomObject] = ALL,
) -> list[Path]:
    """Write OUT/KIND.dcm for each object; returns the files written. Their names tell nothing of the patient.

    results: a folder with results, or what `read_written` read from it; source: the CT they were made from, as
    read from DICOM. A result without findings has no segmentation (one without segments is not legal).
    Raises InputError where results and source do not belong together; UsageError where the source is not DICOM or
    highdicom is not installed; ResourceError on a full disk.
    """
    structured_reporting()
    if isinstance(results, Path):
        results = read_written(results)
    context = _context(results, source)
    made = {out / f"{kind}.dcm": _bytes(_MAKERS[kind](context)) for kind in objects}
    written = []
    for path, content in made.items():  # only now that all could be made
        if content is None:
            path.unlink(missing_ok=True)  # of an earlier result
        else:
            written.append(write_file(path, content))
    return written


def marked_again(
    results: WrittenResults,
    false_alarms: float,
    threshold: float,
    regions: npt.NDArray[np.uint16],
    findings: tuple[Finding, ...],
) -> WrittenResults:
    """The results as another rate of false alarms would have made them; `klip_engine.saved` tells what it marks."""
    document: dict[str, Any] = results.document | {
        "settings": results.document.get("settings", {}) | {"false_alarms": false_alarms},
        "threshold": threshold,
    }
    return replace(results, document=document, regions=regions, findings=findings, threshold=threshold)


def series_of(results: WrittenResults) -> str | None:
    """The pseudonym of the series that findings.json holds; None where the input was not read from DICOM."""
    series = results.document.get("input", {}).get("series")
    return series if isinstance(series, str) and series else None


def _context(results: WrittenResults, loaded: Loaded) -> Context:
    source = read_source(loaded)
    series = series_of(results)
    if series is not None and pseudonym(source.series_uid) != series:
        raise InputError("these results were made from another series; give the series they were made from")
    geometry = source.volume.geometry
    if geometry.size != results.geometry.size or not np.allclose(
        geometry.matrix, results.geometry.matrix, atol=1e-3
    ):
        raise InputError(
            "the series has other slices or another place than the results; give it as it was for the detection"
        )
    if series is None and not _same_voxels(results, source):
        raise InputError(
            "these results were made from a volume file, and the series does not hold the same HU; give the "
            "series that the volume came from"
        )
    return Context(results, source, result_uids(source, results.document))


def _same_voxels(results: WrittenResults, source: SourceSeries) -> bool:
    """Whether the series has the mean HU of every slice of the volume the results were made from."""
    means = results.document.get("slice_means_hu")
    found = slice_means(source.volume.hu)
    return (
        isinstance(means, list) and len(means) == len(found) and bool(np.allclose(means, found, atol=0.1, rtol=0))
    )


def _bytes(dataset: Dataset | None) -> bytes | None:
    if dataset is None:
        return None
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()
