"""A real PACS takes every object, on the study it belongs to, and gives the same bytes back."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE

from klip_engine.io.dicom_results import DicomObject

from ...orthanc import Orthanc, orthanc, orthanc_process
from .cases import Case, read

__all__ = ["orthanc", "orthanc_process"]


def test_objects_by_rest_lie_on_the_study(tmp_path: Path, case_with: Callable[..., Case], orthanc: Orthanc) -> None:
    case = case_with()
    study = {orthanc.upload(path.read_bytes())["ParentStudy"] for path in case.folder.iterdir()}
    for path in case.write(tmp_path / "dicom", list(DicomObject)).values():
        answer = orthanc.upload(path.read_bytes())
        assert answer["Status"] == "Success"
        assert {answer["ParentStudy"]} == study
        assert orthanc.get(f"/instances/{answer['ID']}/file") == path.read_bytes()
        assert orthanc.upload(path.read_bytes())["Status"] == "AlreadyStored"
    modalities = sorted(
        orthanc.json(f"/series/{one}")["MainDicomTags"]["Modality"] for one in orthanc.json("/series")
    )
    assert modalities == ["CT", "OT", "OT", "SEG", "SEG", "SR"]


def test_objects_by_c_store(tmp_path: Path, case_with: Callable[..., Case], orthanc: Orthanc) -> None:
    files = case_with().write(tmp_path / "dicom", list(DicomObject))
    datasets = [read(path) for path in files.values()]
    entity = AE("KLIP")
    for dataset in datasets:
        entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", orthanc.dicom_port, ae_title=orthanc.aet)
    assert association.is_established
    try:
        for dataset in datasets:
            assert association.send_c_store(dataset).Status == 0x0000
    finally:
        association.release()
    assert len(orthanc.json("/instances")) == len(files)
    assert len(orthanc.json("/studies")) == 1
    stored = [pydicom.dcmread(BytesIO(orthanc.get(f"/instances/{one}/file"))) for one in orthanc.json("/instances")]
    for dataset in datasets:
        (back,) = [one for one in stored if one.SOPInstanceUID == dataset.SOPInstanceUID]
        assert back == dataset


@pytest.mark.parametrize("kind", ["seg", "sc"])
def test_orthanc_draws_frames(tmp_path: Path, case_with: Callable[..., Case], orthanc: Orthanc, kind: str) -> None:
    path = case_with().write(tmp_path / "dicom")[kind]
    instance = orthanc.upload(path.read_bytes())["ID"]
    assert orthanc.get(f"/instances/{instance}/frames/0/preview").startswith(b"\x89PNG")
