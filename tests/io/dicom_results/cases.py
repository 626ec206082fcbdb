"""A DICOM series and a result of it on disk, whose regions, scores and findings are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from klip_engine.detection import NOTICE, Finding
from klip_engine.io import LoadedCT, read_ct
from klip_engine.io.dicom_results import ALL, DicomObject, write_dicom_results
from klip_engine.version import __version__

from ..dicom_files import AXIAL, straight_positions, write_series

STUDY, SERIES, SPACE = (generate_uid(entropy_srcs=[word]) for word in ("study", "series", "space"))


@dataclass(frozen=True)
class Case:
    """The series, as files and as read; the folder with the result; what lies in it."""

    folder: Path
    loaded: LoadedCT
    results: Path
    score: np.ndarray
    regions: np.ndarray
    findings: tuple[Finding, ...]

    def write(self, out: Path, objects: Sequence[DicomObject] = ALL) -> dict[str, Path]:
        """The objects, by the stem of their file."""
        return {path.stem: path for path in write_dicom_results(self.results, self.loaded, out, objects)}


def make_case(
    folder: Path,
    *,
    shape: tuple[int, int, int] = (6, 40, 48),
    orientation: Sequence[float] = AXIAL,
    gap: float = 3.0,
    descending: bool = False,
    findings: int = 2,
    p_value: float | None = 0.01,
    edit: Callable[[Dataset, int], None] | None = None,
) -> Case:
    """A series of `shape` and a result with `findings` boxes of two voxels a side (of one voxel where many)."""
    values = np.random.default_rng(0).integers(-1000, 400, shape).astype(np.int16)
    positions = straight_positions(shape[0], gap, orientation)
    order = slice(None, None, -1) if descending else slice(None)

    def complete(dataset: Dataset, k: int) -> None:
        complete_header(dataset, k)
        if edit is not None:
            edit(dataset, k)

    files = folder / "series"
    planes = (values[order], positions[order])
    write_series(files, *planes, orientation=orientation, pixel_mm=(0.75, 0.8), series=SERIES, edit=complete)
    return add_result(folder, read_ct(files), findings, p_value)


def complete_header(dataset: Dataset, k: int) -> None:
    """What a real CT has beside what places its voxels."""
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = STUDY, SPACE
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["image", str(k)])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyDate, dataset.StudyTime = "20260102", "101112"
    dataset.SeriesDate, dataset.ContentDate, dataset.ContentTime = "20260102", "20260102", "101530.5"
    dataset.PatientSex, dataset.StudyID, dataset.AccessionNumber = "F", "S1", "ACC-77"
    dataset.PatientAge, dataset.StudyDescription = "071Y", "CT chest"
    dataset.ReferringPhysicianName = "Secretdoctor^A"
    dataset.BodyPartExamined = "CHEST"
    dataset.PositionReferenceIndicator = ""


def add_result(folder: Path, loaded: LoadedCT, findings: int, p_value: float | None = 0.01) -> Case:
    """Write a result of a series that was read."""
    geometry = loaded.volume.geometry
    shape = geometry.size[::-1]
    score = np.random.default_rng(1).uniform(0, 1, shape).astype(np.float32)
    regions = np.zeros(shape, dtype=np.uint16)
    table = []
    for label, (z, y, x) in enumerate(_places(shape, findings), start=1):
        box = (z, slice(y, y + 2), slice(x, x + 2))
        value = round(9.0 - 5.0 * (label - 1) / max(findings, 1), 6)
        regions[box], score[box] = label, value
        centre = tuple(float(v) for v in geometry.to_lps((x + 0.5, y + 0.5, z)))
        volume = 4 * float(np.prod(geometry.spacing)) / 1000
        table.append(Finding(label, value, p_value, centre, volume, (z, z)))
    results = folder / "results"
    results.mkdir(parents=True)
    for name, array in (
        ("klip", score),
        ("regions", regions),
        ("reconstruction", loaded.volume.hu.astype(np.int16)),
    ):
        sitk.WriteImage(geometry.image(array), str(results / f"{name}.nrrd"))
    document = {
        "schema": "klip-findings/1",
        "engine": __version__,
        "notice": NOTICE,
        "notices": [],
        "prior": {"name": "default", "hash": "sha256:ab12"},
        "settings": {"sampling": {"steps": 20}, "false_alarms": 0.2, "seed": 0, "score": {"name": "klip"}},
        "input": loaded.description,
        "threshold": 1.5,
        "slices": [],
        "findings": [asdict(finding) for finding in table],
        "timing": {"total_s": 1.0},
    }
    (results / "findings.json").write_text(json.dumps(document))
    return Case(folder / "series", loaded, results, score, regions, tuple(table))


def _places(shape: tuple[int, ...], count: int) -> list[tuple[int, int, int]]:
    """Voxel index (z, y, x) of the corner of each box: they do not touch."""
    grid = [
        (z, y, x) for y in range(2, shape[1] - 2, 4) for x in range(3, shape[2] - 2, 5) for z in range(shape[0])
    ]
    step = max(1, len(grid) // max(count, 1))
    chosen = grid[::step][:count]
    assert len(chosen) == count
    return chosen


def read(path: Path) -> Dataset:
    return pydicom.dcmread(path)
