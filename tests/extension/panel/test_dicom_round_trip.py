"""A series of the DICOM database: loaded as Slicer loads it, detected and exported by the real engine, and back."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from tests.conftest import torso
from tests.extension.mrml import array_of, ras_of, slicer, vtk
from tests.extension.panel.conftest import QUICK, wait_for
from tests.io.dicom_files import AXIAL, oblique, straight_positions, write_series

PIXEL_MM, GAP_MM = 4.0, 5.0
FEET_FIRST = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Rows run to the patient's right: along their normal the slices follow each other towards the feet."""


class Database:
    """slicer.dicomDatabase and DICOMLib.DICOMUtils: files by their instance, and what was imported."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, {}

    def fileForInstance(self, uid: str) -> str:
        return self.files.get(uid, "")

    def importDicom(self, folder: str, database: Database, copyFiles: bool = False) -> bool:
        assert database is self
        for file in sorted(Path(folder).iterdir()):
            content = file.read_bytes()
            kept = self.folder / f"{len(self.files):04d}.dcm"
            kept.write_bytes(content)
            self.files[str(pydicom.dcmread(kept, stop_before_pixels=True).SOPInstanceUID)] = str(kept)
        return True


@pytest.fixture
def database(app, monkeypatch, tmp_path):
    folder = tmp_path / "database"
    folder.mkdir()
    database = Database(folder)
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    library = types.ModuleType("DICOMLib")
    library.DICOMUtils = types.SimpleNamespace(importDicom=database.importDicom)
    monkeypatch.setitem(sys.modules, "DICOMLib", library)
    return database


def load_series(mrml, database, folder: Path, hu: np.ndarray, orientation, *, reverse: bool = False):
    """Write a series, and load it with the reader and the attribute of Slicer's DICOM module."""
    positions = straight_positions(len(hu), GAP_MM, orientation)
    shuffled = np.random.default_rng(0).permutation(len(hu))
    names = [f"IM{n}" for n in shuffled]
    files = write_series(folder, hu, positions, orientation=orientation, pixel_mm=(PIXEL_MM, PIXEL_MM), names=names)
    listed = vtk.vtkStringArray()
    ordered = files[::-1] if reverse else files
    for file in ordered:
        listed.InsertNextValue(str(file))
    volumes = next(one for one in mrml._logics if one.IsA("vtkSlicerVolumesLogic"))
    node = volumes.AddArchetypeScalarVolume(str(ordered[0]), "3: Thorax", 0, listed)
    uids = [str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in ordered]
    node.SetAttribute("DICOM.instanceUIDs", " ".join(uids))
    database.files.update(zip(uids, map(str, ordered), strict=True))
    return node, files


def exported(logic, result, database) -> pydicom.Dataset:
    """The segmentation that the export puts into the database."""
    before, ended = set(database.files), []
    logic.detector.export_dicom(result, done=lambda: ended.append(None), failed=ended.append)
    wait_for(lambda: ended, 60)
    assert ended == [None], str(ended[0])
    (added,) = set(database.files) - before
    return highdicom.seg.segread(database.files[added])


def frames_of(segmentation) -> dict[tuple[int, tuple[float, ...]], np.ndarray]:
    """(segment, LPS mm of the first pixel, in tenths): what is marked there, of the frames that mark anything."""
    frames = {}
    for group, pixels in zip(segmentation.PerFrameFunctionalGroupsSequence, segmentation.pixel_array, strict=True):
        number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        place = group.PlanePositionSequence[0].ImagePositionPatient
        if pixels.any():
            frames[number, _tenths(place)] = pixels > 0
    return frames


def slices_of(regions) -> dict[tuple[int, tuple[float, ...]], np.ndarray]:
    """The same of a label map of the scene, its place told by VTK."""
    voxels = array_of(regions)
    firsts = ras_of(regions, [(0, 0, k) for k in range(len(voxels))]) * (-1, -1, 1)
    labels = {int(label) for label in np.unique(voxels)} - {0}
    return {
        (label, _tenths(first)): plane == label
        for first, plane in zip(firsts, voxels, strict=True)
        for label in labels
        if (plane == label).any()
    }


def _tenths(point) -> tuple[float, ...]:
    return tuple(round(10 * float(value)) for value in point)


def scan() -> np.ndarray:
    """A torso with something dense in one slice, int16 HU [z, y, x]."""
    hu = torso(4)
    hu[2, 46:50, 58:62] = 1800
    return np.rint(np.maximum(hu, -1000)).astype(np.int16)


@pytest.mark.parametrize(
    ("orientation", "reverse"),
    [(AXIAL, False), (FEET_FIRST, True), (oblique(), False)],
    ids=["axial", "files from the far end", "oblique"],
)
def test_a_series_comes_back_as_a_segmentation_of_itself(
    logic, mrml, database, tiny_prior, tmp_path, orientation, reverse
):
    node, files = load_series(mrml, database, tmp_path / "series", scan(), orientation, reverse=reverse)
    result = logic.process(node, falseAlarms=0.5, prior=str(tiny_prior), **QUICK)
    segmentation = exported(logic, result, database)
    source = [pydicom.dcmread(file) for file in files]
    assert segmentation.StudyInstanceUID == source[0].StudyInstanceUID
    assert segmentation.PatientID == source[0].PatientID
    (series,) = segmentation.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source[0].SeriesInstanceUID
    referenced = {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence}
    assert referenced <= {one.SOPInstanceUID for one in source}
    frames, slices = frames_of(segmentation), slices_of(result.regions)
    assert frames
    assert frames.keys() == slices.keys()
    for key, pixels in frames.items():
        np.testing.assert_array_equal(pixels, slices[key])


def test_what_was_below_a_transform_is_not_exported_elsewhere(logic, mrml, database, tiny_prior, tmp_path):
    """The findings of a volume that was moved do not lie where its series does."""
    node, _files = load_series(mrml, database, tmp_path / "series", scan(), AXIAL)
    moved = np.eye(4)
    moved[2, 3] = 30.0
    node.SetAndObserveTransformNodeID(mrml.add_transform(moved).GetID())
    result = logic.process(node, prior=str(tiny_prior), **QUICK)
    with pytest.raises(RuntimeError, match="below a transform"):
        logic.detector.export_dicom(result)
