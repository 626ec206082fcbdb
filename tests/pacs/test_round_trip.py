"""A series goes in, results come back on the same study: against a real Orthanc."""

from __future__ import annotations

from tests.pacs.conftest import by_store, by_stow, config, wait_for
from tests.pacs.sending import send
from tests.pacs.studies import PATIENT, ct_study


def test_by_c_store_in_and_out(orthanc, running, tmp_path):
    study = ct_study("round trip by C-STORE")
    service = running(config(tmp_path, by_store(orthanc)))
    assert send(study, service.listener.port) == [0] * 10
    uid = study[0].StudyInstanceUID
    found = wait_for(lambda: (f := orthanc.instances_by_modality(uid)) and sum(map(len, f.values())) == 4 and f)
    assert sorted(found) == ["OT", "SEG", "SR"]
    wait_for(lambda: service.journal.deliveries.counts() == {("pacs", "done"): 4})
    assert service.journal.jobs.counts() == {"done": 1}


def test_out_by_stow(orthanc, running, tmp_path):
    study = ct_study("round trip, out by STOW-RS")
    service = running(config(tmp_path, by_stow(orthanc)))
    send(study, service.listener.port)
    wait_for(lambda: service.journal.deliveries.counts() == {("web", "done"): 4})
    assert sorted(orthanc.instances_by_modality(study[0].StudyInstanceUID)) == ["OT", "SEG", "SR"]


def test_nothing_of_the_patient_in_log_or_names(orthanc, running, tmp_path):
    study = ct_study("privacy")
    service = running(config(tmp_path, by_store(orthanc)))
    send(study, service.listener.port)
    wait_for(lambda: service.journal.deliveries.counts() == {("pacs", "done"): 4})
    names = "\n".join(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    said = running.log + names
    secrets = [PATIENT, "Doe", "MRN-123456", study[0].StudyInstanceUID, study[0].SeriesInstanceUID]
    assert not [secret for secret in [*secrets, study[3].SOPInstanceUID] if secret in said]
