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
_DAMAGE = (OSError, ValueError, KeyError, EOFError, AttributeError, NotImplementedError, TypeError)


@dataclass(frozen=True)
class View:
    """One file: its path, and its header without pixels and without anything about the patient."""

    path: Path
    header: Dataset


def view_headers(folder: Path) -> tuple[list[View], int]:
    """The views of one scan, in the order of their names, and how many other files the folder holds.

    Raises InputError for damaged files, no views at all, and the views of several series.
    """
    views: list[View] = []
    skipped = 0
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        header = _header(path)
        if header is not None and tags.FOCAL_ANGLE[0] in header:
            views.append(View(path, header))
        else:
            skipped += 1
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
    numbers = [view.header.get("InstanceNumber") for view in views]
    if all(number is not None for number in numbers):
        order = np.argsort([int(number) for number in numbers], kind="stable")
        if len({int(number) for number in numbers}) < len(views):
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
    slope, intercept = view.header.get("RescaleSlope"), view.header.get("RescaleIntercept")
    if slope is None or intercept is None:
        raise InputError(
            f"{view.path} has no rescale slope and intercept: the unit of its values is not known; export it again"
        )
    try:
        stored = pydicom.dcmread(view.path).pixel_array
    except (*_DAMAGE, RuntimeError, InvalidDicomError) as error:
        raise InputError(
            f"the pixels of {view.path} cannot be read: the file is truncated; copy it again"
        ) from error
    if stored.shape != (int(view.header.Rows), int(view.header.Columns)):
        raise InputError(f"{view.path} does not hold one image of {view.header.Rows} x {view.header.Columns}")
    values: FloatArray = stored.astype(np.float32)
    values *= np.float32(slope)
    values += np.float32(intercept)
    return values


def _header(path: Path) -> Dataset | None:
    """The tags this program knows; None for what is no DICOM."""
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*_PUBLIC, *_PRIVATE])
    except InvalidDicomError:
        return None
    except _DAMAGE as error:
        raise InputError(f"{path} cannot be read: it is damaged or incomplete; copy it again") from error
