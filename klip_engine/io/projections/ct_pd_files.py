"""The files of a DICOM-CT-PD folder: which are views of one scan, in which order, and what each measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from klip_engine.errors import InputError
from klip_engine.io.projections import ct_pd_tags as tags
from klip_engine.volume import FloatArray

_PUBLIC = [
    "SeriesInstanceUID",
    "InstanceNumber",
    "PatientPosition",
    "DataCollectionCenterPatient",
    "Rows",
    "Columns",
    "RescaleSlope",
    "RescaleIntercept",
]
_PRIVATE = [tag[0] for tag in vars(tags).values() if isinstance(tag, tuple) and len(tag) == 2]


@dataclass(frozen=True)
class View:
    """One file: its path, its header without pixels or anything about the patient, and of that the instance
    number, the rescale slope and intercept (None where missing), and the image's (Rows, Columns)."""

    path: Path
    header: Dataset
    number: int | None
    slope: float | None
    intercept: float | None
    size: tuple[int, int]


def view_headers(folder: Path) -> tuple[list[View], int]:
    """The views of one scan, in the order of their names, and how many other files the folder holds.

    Raises InputError for damaged files, no views at all, and the views of several series.
    """
    views: list[View] = []
    skipped = 0
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        view = _view(path)
        if view is None:
            skipped += 1
        else:
            views.append(view)
    if not views:
        raise InputError(f"{folder} holds no DICOM-CT-PD views; name the folder with the projections")
    series = {str(view.header.get("SeriesInstanceUID", "")) for view in views}
    if len(series) > 1:
        raise InputError(f"{folder} holds the views of {len(series)} series; keep those of one scan in a folder")
    return views, skipped


def in_order(views: list[View], folder: Path) -> list[View]:
    """In the order they were taken: by InstanceNumber; where a file has none, along the table, then by angle.

    Raises InputError where two files have the same number.
    """
    numbers = [view.number for view in views if view.number is not None]
    if len(numbers) == len(views):
        order = np.argsort(numbers, kind="stable")
        if len(set(numbers)) < len(views):
            raise InputError(f"{folder} holds two views with the same instance number; keep one scan in a folder")
        return [views[i] for i in order]
    where = [
        (
            float(tags.floats(v.header, tags.FOCAL_Z, v.path)[0]),
            float(tags.floats(v.header, tags.FOCAL_ANGLE, v.path)[0]),
        )
        for v in views
    ]
    return [views[i] for i in sorted(range(len(views)), key=where.__getitem__)]


def read_view(view: View) -> FloatArray:
    """Line integrals as the image holds them, [Rows, Columns] float32: stored values with slope and intercept.

    Raises InputError for damaged pixels and for a file without rescale slope: its unit is not known.
    """
    if view.slope is None or view.intercept is None:
        raise InputError(
            f"{view.path} has no rescale slope and intercept: the unit of its values is not known; export it again"
        )
    try:
        stored = pydicom.dcmread(view.path).pixel_array
    except Exception as error:  # each decoder has exceptions of its own
        raise InputError(
            f"the pixels of {view.path} cannot be read: the file is truncated; copy it again"
        ) from error
    if stored.shape != view.size:
        raise InputError(f"{view.path} does not hold one image of {view.size[0]} x {view.size[1]} values")
    values: FloatArray = stored.astype(np.float32)
    values *= np.float32(view.slope)
    values += np.float32(view.intercept)
    return values


def _view(path: Path) -> View | None:
    """The tags this program knows, all decoded here, where damage shows; None for what is no view."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*_PUBLIC, *_PRIVATE])
        header.decode()
        if tags.FOCAL_ANGLE[0] not in header:
            return None
        number, slope, intercept = (header.get(n) for n in ("InstanceNumber", "RescaleSlope", "RescaleIntercept"))
        return View(
            path,
            header,
            None if number is None else int(number),
            None if slope is None else float(slope),
            None if intercept is None else float(intercept),
            (int(header.get("Rows") or 0), int(header.get("Columns") or 0)),
        )
    except InvalidDicomError:
        return None
    except Exception as error:  # pydicom raises whatever the damage happens to cause
        raise InputError(f"{path} cannot be read: it is damaged or incomplete; copy it again") from error
