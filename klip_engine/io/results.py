"""Writes a detection: three maps in the grid of the input, the table of findings and the report."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from klip_engine.detection import NOTICE, Detection, PhotographDetection
from klip_engine.errors import ResourceError
from klip_engine.io.atomic import FINDINGS_FILE, SCHEMA, results_folder
from klip_engine.io.photograph_report import render_photograph_report
from klip_engine.io.report import render_report
from klip_engine.io.report_pictures import png_bytes
from klip_engine.version import __version__
from klip_engine.volume import CTVolume, Geometry, slice_means

WORKING_SCORE_FILE = "klip-working.nrrd"
"""The score on the grid it was computed on: what marking at another rate starts from."""

_CSV_COLUMNS = (
    "label",
    "score",
    "p_value",
    "x_lps_mm",
    "y_lps_mm",
    "z_lps_mm",
    "volume_ml",
    "first_slice",
    "last_slice",
)


def write_results(detection: Detection, folder: Path, *, extras: Sequence[Callable[[Path], None]] = ()) -> None:
    """Write `folder` completely or not at all.

    reconstruction.nrrd (HU, int16), klip.nrrd (score, float32), regions.nrrd (labels, uint16), all on
    `detection.geometry`; of a photograph reconstruction.png (8 bits), klip.nrrd and regions.png (labels, 16 bits);
    klip-working.nrrd (score on the working grid, 0 outside the body; see `klip_engine.saved`); findings.json,
    findings.csv, report.html. extras: writers of further files (DICOM objects, say), each called with the
    temporary folder before it gets its final name.
    Raises UsageError when the folder holds something else, ResourceError when it cannot be written.
    """
    with results_folder(folder) as temporary:
        if isinstance(detection, PhotographDetection):
            report = _write_photograph(detection, temporary)
        else:
            report = _write_volumes(detection, temporary)
        _write_volume(_working_score(detection), detection.working.geometry, temporary / WORKING_SCORE_FILE)
        _write_json(findings_document(detection), temporary / FINDINGS_FILE)
        _write_csv(detection, temporary / "findings.csv")
        (temporary / "report.html").write_text(report, encoding="utf-8")
        for write in extras:
            write(temporary)


def findings_document(detection: Detection) -> dict[str, Any]:
    """The content of findings.json: plain JSON values only, numbers that are not finite become null."""
    document: dict[str, Any] = _plain(
        {
            "schema": SCHEMA,
            "engine": __version__,
            "notice": NOTICE,
            "notices": detection.notices,
            "prior": detection.prior,
            "settings": detection.settings,
            "input": detection.input,
            "threshold": detection.threshold,
            "null": {"maxima": detection.null_maxima},
            "working_slices": detection.working.source_slices,
            "slice_means_hu": _slice_means(detection),
            "slices": [asdict(s) for s in detection.slices],
            "findings": [asdict(f) for f in detection.findings],
            "timing": detection.timing,
        }
    )
    return document


def _slice_means(detection: Detection) -> list[float] | None:
    """Mean HU of every slice of the input: tells a later reader whether another copy of it is the same scan."""
    if not isinstance(detection.source, CTVolume):
        return None
    return [round(float(mean), 2) for mean in slice_means(detection.source.hu)]


def _working_score(detection: Detection) -> npt.NDArray[np.float32]:
    return np.where(detection.working.body, detection.working.score, np.float32(0))


def _write_volumes(detection: Detection, folder: Path) -> str:
    """The maps of a CT; returns its report."""
    for name, file in (
        ("reconstruction", "reconstruction.nrrd"),
        ("score", "klip.nrrd"),
        ("regions", "regions.nrrd"),
    ):
        _write_volume(_on_input_grid(detection, name), detection.geometry, folder / file)
    return render_report(detection)


def _write_photograph(detection: PhotographDetection, folder: Path) -> str:
    """The maps of a photograph; returns its report."""
    (folder / "reconstruction.png").write_bytes(png_bytes(detection.reconstruction.squeeze()))
    (folder / "regions.png").write_bytes(png_bytes(detection.regions[0]))
    _write_volume(detection.score, detection.geometry, folder / "klip.nrrd")
    return render_photograph_report(detection)


def _on_input_grid(detection: Detection, name: str) -> npt.NDArray[Any]:
    """One of the volumes of a detection, without leaving it in the cache: three at once may not fit."""
    was_cached = name in vars(detection)
    array: npt.NDArray[Any] = getattr(detection, name)
    if not was_cached:
        vars(detection).pop(name, None)
    return array


def _write_volume(array: npt.NDArray[Any], geometry: Geometry, path: Path) -> None:
    try:
        sitk.WriteImage(geometry.image(array), str(path), useCompression=True, compressionLevel=1)
    except RuntimeError as error:
        raise ResourceError(f"{path.name} could not be written: is the disk full?") from error


def _write_json(document: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _write_csv(detection: Detection, path: Path) -> None:
    """The findings as in findings.json, one a row; an unknown p-value is empty."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(_CSV_COLUMNS)
        for finding in detection.findings:
            row = [
                finding.label,
                finding.score,
                finding.p_value,
                *finding.centroid_lps_mm,
                finding.volume_ml,
                *finding.slice_range,
            ]
            writer.writerow(["" if v is None else v for v in _plain(row)])


def _plain(value: Any) -> Any:
    """JSON values from numpy scalars and arrays, tuples, paths and numbers that are not finite."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
