"""Makes the demonstration scan that ships with the package: real CT slices with one inserted lesion."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from klip_engine.body import body_mask
from klip_engine.errors import InputError
from klip_engine.evaluation.insertion import Insertion, insert_at
from klip_engine.volume import BoolArray, CTVolume, Geometry

SLICES = (31, 54)
"""First and last slice taken: the liver dome, the lung bases and the lower heart."""
CENTRE_LPS_MM = (-92.0, -88.0, -132.5)
DIAMETERS_MM = (17.0, 16.0, 16.0)
SEED = 2605
MARGIN_MM = 10.0


def make_demo_volume(source: Path, folder: Path) -> Insertion:
    """Write demo_ct.nrrd (int16 HU, gzip) and demo_truth.json into the folder.

    source: cptac-pda-c3n-00249-chest-abdomen.nrrd (TCIA, CPTAC-PDA, CC BY 3.0). Cuts 24 slices, crops them to
    the body and 10 mm around it, and inserts one nodule into the lower lobe of the right lung.
    Raises InputError when the source cannot be read or is too short.
    """
    healthy = cropped_to_body(_read(source))
    inserted = insert_at(
        healthy,
        "nodule",
        CENTRE_LPS_MM,
        diameters_mm=DIAMETERS_MM,
        rng=np.random.default_rng(SEED),
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write_image(inserted.volume, folder / "demo_ct.nrrd")
    truth = {
        "schema": "klip-demo-truth/1",
        **dataclasses.asdict(inserted.record),
        "seed": SEED,
        "source_file": source.name,
        "source_collection": "CPTAC-PDA (TCIA), CC BY 3.0, doi 10.7937/K9/TCIA.2018.SC20FO18",
        "source_slice_range": SLICES,
        "note": "The lesion was inserted by klip_engine.evaluation.insertion; it is not real.",
    }
    _write_text(json.dumps(_rounded(truth), indent=2) + "\n", folder / "demo_truth.json")
    return inserted


def cropped_to_body(volume: CTVolume, margin_mm: float = MARGIN_MM) -> CTVolume:
    """The volume cropped in the slice to the patient and a margin; the table stays where it is near."""
    spacing_x, spacing_y, _ = volume.geometry.spacing
    body = body_mask(volume.hu, (spacing_x + spacing_y) / 2)
    rows = _span(np.any(body, axis=(0, 2)), round(margin_mm / spacing_y))
    columns = _span(np.any(body, axis=(0, 1)), round(margin_mm / spacing_x))
    hu = np.ascontiguousarray(volume.hu[:, rows, columns])
    origin = volume.geometry.to_lps((columns.start, rows.start, 0))
    size = (hu.shape[2], hu.shape[1], hu.shape[0])
    x, y, z = (float(value) for value in origin)
    return CTVolume(hu, Geometry(size, volume.geometry.spacing, (x, y, z), volume.geometry.direction))


def _span(used: BoolArray, margin: int) -> slice:
    places = np.flatnonzero(used)
    return slice(max(0, int(places[0]) - margin), min(used.size, int(places[-1]) + 1 + margin))


def _read(source: Path) -> CTVolume:
    first, last = SLICES
    try:
        image = sitk.ReadImage(str(source))
    except RuntimeError as error:
        raise InputError(f"{source} cannot be read; is it the CPTAC-PDA series of the demo?") from error
    if image.GetSize()[2] <= last:
        raise InputError(f"{source} has {image.GetSize()[2]} slices; the demo needs {last + 1}.")
    return CTVolume.from_image(image[:, :, first : last + 1])


def _write_image(volume: CTVolume, path: Path) -> None:
    image = volume.geometry.image(np.rint(volume.hu).astype(np.int16))
    temporary = path.with_name(f"partial-{path.name}")
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(temporary))
    writer.UseCompressionOn()
    writer.SetCompressionLevel(9)
    writer.Execute(image)
    os.replace(temporary, path)


def _write_text(text: str, path: Path) -> None:
    temporary = path.with_name(f"partial-{path.name}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
