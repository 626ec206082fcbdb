"""The parametric map holds the score, bit for bit and in its place."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import SimpleITK as sitk

from klip_engine.detection import NOTICE
from klip_engine.io.dicom_results import DicomObject

from .cases import Case, read
from .readers import dcmqi, volume_at, voxels_at


def test_dcmqi_reads_the_score_where_it_is(case: Case, tmp_path: Path) -> None:
    files = case.write(tmp_path / "dicom", [DicomObject.PM])
    out = dcmqi("paramap2itkimage", files["pm"], tmp_path / "dcmqi")
    image = sitk.ReadImage(str(out / "pmap.nrrd"))
    np.testing.assert_array_equal(voxels_at(image, case.loaded.volume.geometry), case.score)


def test_highdicom_reads_the_score_where_it_is(case: Case, tmp_path: Path) -> None:
    volume = hd.imread(case.write(tmp_path, [DicomObject.PM])["pm"]).get_volume()
    found = volume_at(np.asarray(volume.array), volume.affine, case.loaded.volume.geometry)
    np.testing.assert_array_equal(found.astype(np.float32), case.score)


def test_pydicom_reads_frames_ascending_along_the_normal(case: Case, tmp_path: Path) -> None:
    dataset = read(case.write(tmp_path, [DicomObject.PM])["pm"])
    shape = case.score.shape if len(case.score) > 1 else case.score.shape[1:]
    np.testing.assert_array_equal(dataset.pixel_array.reshape(shape), case.score.reshape(shape))
    places = [
        np.array(frame.PlanePositionSequence[0].ImagePositionPatient) @ case.loaded.volume.geometry.slice_normal
        for frame in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert places == sorted(places)
    assert NOTICE in dataset.ImageComments
    assert '"steps":20' in dataset.ImageComments
