"""The log: lines that programs read, a file that never grows without end, and nothing of the patient in either."""

from __future__ import annotations

import json
import stat
import threading

import pytest
from typer.testing import CliRunner

from klip_engine.cli import app
from klip_engine.errors import UsageError
from klip_engine.pacs.config import Status
from klip_engine.pacs.event_log import EventLog, Level, hide_uids
from klip_engine.pacs.event_tally import EventTally
from klip_engine.pacs.log_file import LogFile
from klip_engine.pacs.pseudonyms import load_pseudonyms
from klip_engine.pacs.service import Service
from tests.orthanc import Orthanc
from tests.pacs.busy_journal import STUDIES, busy
from tests.pacs.conftest import by_store, config, stand_in, wait_for
from tests.pacs.sending import send
from tests.pacs.studies import PATIENT, ct_study
from tests.pacs.test_status_server import ask


def test_file_is_put_aside_at_its_size_and_nothing_in_between_is_lost(tmp_path):
    file = tmp_path / "logs" / "klip.log"
    log = EventLog(LogFile(file, max_bytes=2000, keep=100))
    threads = [
        threading.Thread(target=lambda k=k: [log("e", number=100 * k + n) for n in range(50)]) for k in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    files = sorted(file.parent.iterdir())
    assert len(files) > 5
    assert max(one.stat().st_size for one in files) <= 2000
    numbers = [json.loads(line)["number"] for one in files for line in one.read_text().splitlines()]
    assert sorted(numbers) == [100 * k + n for k in range(4) for n in range(50)]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_only_so_many_files_stay_and_the_newest_lines_are_in_the_first(tmp_path):
    log = LogFile(tmp_path / "klip.log", max_bytes=100, keep=2)
    for number in range(100):
        log.write(f"{number:09}\n")
    log.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["klip.log", "klip.log.1", "klip.log.2"]
    said = [(tmp_path / name).read_text().split() for name in ("klip.log.2", "klip.log.1", "klip.log")]
    assert [int(one) for lines in said for one in lines] == list(range(70, 100))


def test_a_restart_goes_on_with_the_file(tmp_path):
    for number in range(2):
        log = LogFile(tmp_path / "klip.log", max_bytes=1000, keep=1)
        log.write(f"{number}\n")
        log.close()
    assert (tmp_path / "klip.log").read_text() == "0\n1\n"


def test_a_log_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"name another log\.file"):
        LogFile(tmp_path / "file" / "klip.log", 1000, 1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("series 1.2.840.113619.2.55.3.604688119.868 is odd", "series [UID] is odd"),
        ("2.25.329800735698586629295641978511506172918", "[UID]"),
        (
            "peer 10.1.4.7 rejected, klip-engine 0.1.0, 12.5 mm",
            "peer 10.1.4.7 rejected, klip-engine 0.1.0, 12.5 mm",
        ),
        ("/state/jobs/1.2.840.113619.2.55.3.868.dcm", "/state/jobs/[UID].dcm"),
    ],
)
def test_uids_in_sentences_are_hidden(text, shown):
    assert hide_uids(text) == shown


def test_tally_keeps_an_hour_and_counts_equal_trouble_together():
    tally = EventTally()
    for second in range(7200):
        tally.add("instance-stored", second, {}, is_trouble=False)
    assert tally.counts["instance-stored"] == 7200
    assert tally.per_minute("instance-stored", 7199) == [60] * 60
    assert tally.per_minute("instance-stored", 7199 + 120)[-3:] == [60, 0, 0]
    for k in range(1000):
        tally.add("not-delivered", k, {"destination": "a", "reason": "away", "again_in_s": k}, is_trouble=True)
        tally.add("odd", k, {"reason": f"{k}"}, is_trouble=True)
    assert len(tally.troubles()) == 50
    found = tally.last("not-delivered")
    assert (found.at, found.times) == (999, 1000)


def test_a_full_log_disk_stops_nothing():
    class Full:
        def write(self, text: str) -> None:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    log = EventLog(Full())
    log("started")
    assert log.counts["started"] == 1


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_the_patient_is_seen_from_outside(orthanc: Orthanc, tmp_path, fails):
    """A round trip, or a run that ends with a UID in its sentence: log, page, health and metrics are searched."""
    study = ct_study(f"outside {fails}")
    uid = study[0].SeriesInstanceUID
    sentence = json.dumps({"event": "error", "message": f"series {uid} of a study is not even"})
    command = (lambda source, out: ["sh", "-c", f"echo '{sentence}'; exit 3"]) if fails else stand_in()
    log = EventLog(LogFile(tmp_path / "klip.log", 3000, 50))
    service = Service(config(tmp_path / "state", by_store(orthanc), status=Status(port=0)), log, command=command)
    service.start()
    try:
        page = next(part for part in service.parts if part.name == "status page")
        assert send(study, service.listener.port) == [0] * len(study)
        assert send(study, service.listener.port, calling=PATIENT.upper()[:16]) == []
        ended = {"dead": 1} if fails else {"done": 1}
        wait_for(lambda: service.journal.jobs.counts() == ended)
        wait_for(lambda: all(state == "done" for _, state in service.journal.deliveries.counts()))
        shown = b"".join(ask(page.port, "GET", target)[1] for target in ("/", "/health", "/metrics")).decode()
        assert json.loads(ask(page.port, "GET", "/health")[1])["failures"] == []
    finally:
        service.stop()
    assert not page.is_running
    lines = "".join(one.read_text() for one in tmp_path.glob("klip.log*"))
    events = {json.loads(line)["event"] for line in lines.splitlines()}
    assert {"instance-stored", "series-chosen", "job-started", "association-rejected", "stopped"} <= events
    assert ("not even" in shown) == fails
    told = (lines + shown).lower()
    secrets = [PATIENT, "Doe", "Jane", "MRN-123456", "19700101", uid, study[0].StudyInstanceUID]
    assert not [one for one in [*secrets, study[3].SOPInstanceUID] if one.lower() in told]
    assert Level.ERROR.value in lines or not fails


def test_a_name_is_resolved_for_who_may_read_the_state_folder(tmp_path):
    scene = busy(tmp_path / "state")
    scene.journal.close()
    names = load_pseudonyms(scene.config.state)
    file = tmp_path / "klip.toml"
    file.write_text(
        'state = "state"\n[[folders]]\npath = "in"\n[[destinations]]\nname = "web"\nkind = "dicomweb"\n'
        'url = "http://127.0.0.1:8042/dicom-web"\n'
    )
    found = CliRunner().invoke(app, ["serve", str(file), "--find", names.short(STUDIES[2])])
    assert (found.exit_code, found.stdout.strip()) == (0, STUDIES[2])
    other = CliRunner().invoke(app, ["serve", str(file), "--find", "0" * 12])
    assert other.exit_code == UsageError.exit_code
    assert "no study is called 000000000000" in other.stderr
