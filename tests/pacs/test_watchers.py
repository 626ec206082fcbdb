"""The other doors: a watched folder, Orthanc's change feed, QIDO-RS."""

from __future__ import annotations

import pytest

from klip_engine.pacs.config import DicomwebWatch, FolderWatch
from tests.pacs.conftest import by_stow, config, wait_for
from tests.pacs.peers import archive
from tests.pacs.studies import as_bytes, ct_study, write_study
from tests.pacs.test_delivery import to


@pytest.mark.parametrize("kind", ["orthanc", "qido"])
def test_round_trip_by_dicomweb(orthanc, running, tmp_path, kind):
    study = ct_study(f"DICOMweb {kind}")
    for dataset in study:
        dataset.StudyDate = "20260102" if kind == "orthanc" else _today()
        orthanc.upload(as_bytes(dataset))
    watch = DicomwebWatch("orthanc", orthanc.web, kind, orthanc.url, every_s=0.5)
    service = running(config(tmp_path, by_stow(orthanc), listener=None, dicomweb=(watch,)))
    uid = study[0].StudyInstanceUID
    wait_for(lambda: sum(map(len, orthanc.instances_by_modality(uid).values())) == 14)
    assert sorted(orthanc.instances_by_modality(uid)) == ["CT", "OT", "SEG", "SR"]
    fetched = len(running.events("series-fetched"))
    running.stop()
    service = running(config(tmp_path, by_stow(orthanc), listener=None, dicomweb=(watch,)))
    wait_for(lambda: running.events("started"))
    assert len(service.journal.jobs.of_study(uid)) == 1
    assert fetched == len(running.events("series-fetched"))


def _today() -> str:
    from datetime import date

    return f"{date.today():%Y%m%d}"


def test_a_folder_with_good_and_bad_files(running, tmp_path):
    inbox = tmp_path / "in"
    write_study(inbox / "deep", ct_study("folder"))
    (inbox / "letter.txt").write_text("not DICOM")
    (inbox / ".hidden").write_text("left alone")
    (inbox / "link.dcm").symlink_to("/etc/hostname")
    with archive() as peer:
        watch = FolderWatch(inbox, quiet_s=0.3)
        service = running(config(tmp_path / "state", to(peer), listener=None, folders=(watch,)))
        wait_for(lambda: service.journal.deliveries.counts() == {("archive", "done"): 4})
    assert not list(inbox.rglob("*.dcm")) or [path.name for path in inbox.rglob("*.dcm")] == ["link.dcm"]
    assert (inbox / ".hidden").exists()
    (reason,) = (inbox / "rejected").glob("*-letter.txt.reason.txt")
    assert reason.read_text() == "the data set is damaged\n"


def test_a_folder_whose_files_stay(running, tmp_path):
    inbox = tmp_path / "in"
    files = write_study(inbox, ct_study("folder kept"))
    with archive() as peer:
        watch = FolderWatch(inbox, quiet_s=0.3, keep=True)
        service = running(config(tmp_path / "state", to(peer), listener=None, folders=(watch,)))
        wait_for(lambda: service.journal.deliveries.counts() == {("archive", "done"): 4})
        assert all(file.exists() for file in files)
        assert len(running.events("instance-stored")) == len(files)
