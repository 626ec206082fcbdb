"""A service is killed again and again while it receives, processes and sends; in the end everything must be there.

Used by the tests with few kills and by benchmarks/pacs_kills.py with many.
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from klip_engine.pacs.journal import Journal
from tests.pacs.orthanc import Orthanc, free_port
from tests.pacs.sending import send
from tests.pacs.studies import ct_study

OBJECTS = 4


@dataclass
class Outcome:
    """What was found in the end; `faults` is empty where nothing was lost and nothing made twice."""

    kills: int
    studies: int
    kills_during: Counter[str]
    faults: list[str]


def storm(folder: Path, orthanc: Orthanc, *, kills: int, studies: int, seed: int, engine_s: float = 0.3) -> Outcome:
    chance = random.Random(seed)
    port = free_port()
    config = _config(folder, orthanc, port)
    sent = [ct_study(f"storm {seed} {k}", slices=8) for k in range(studies)]
    acknowledged: set[str] = set()
    done = threading.Event()
    sender = threading.Thread(target=_send_all, args=(sent, port, acknowledged, done, 1.2 * kills / studies))
    sender.start()
    during: Counter[str] = Counter()
    process = _start(config, folder, engine_s)
    for _ in range(kills):
        time.sleep(chance.uniform(0.05, 3.0))
        process.kill()
        process.wait()
        during[_what_went_on(folder)] += 1
        process = _start(config, folder, engine_s)
    sender.join()
    _wait_until_quiet(folder, studies)
    process.terminate()
    process.wait(30)
    return Outcome(kills, studies, during, _faults(folder, orthanc, sent, acknowledged))


def _config(folder: Path, orthanc: Orthanc, port: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "service.toml"
    file.write_text(
        f"""
state = "state"
free_disk_mb = 1
[listener]
port = {port}
peers = [{{ ae_title = "SCANNER" }}]
[rules]
quiet_s = 0.7
[[destinations]]
name = "pacs"
kind = "dicom"
host = "127.0.0.1"
port = {orthanc.dicom_port}
ae_title = "ORTHANC"
longest_pause_s = 1.0
"""
    )
    return file


def _start(config: Path, folder: Path, engine_s: float) -> subprocess.Popen[bytes]:
    log = (folder / "service.log").open("ab")
    program = str(Path(__file__).with_name("killable.py"))
    return subprocess.Popen([sys.executable, program, str(config), str(engine_s)], stdout=log, stderr=log)


def _send_all(
    studies: list[list[Dataset]], port: int, acknowledged: set[str], done: threading.Event, pause_s: float
) -> None:
    """As a PACS does: what was not acknowledged is sent again."""
    for study in studies:
        while left := [ds for ds in study if ds.SOPInstanceUID not in acknowledged]:
            statuses = send(left, port)
            acknowledged.update(ds.SOPInstanceUID for ds, s in zip(left, statuses, strict=False) if s == 0)
            if len(statuses) < len(left) or any(statuses):
                time.sleep(0.2)
        time.sleep(pause_s)
    done.set()


def _what_went_on(folder: Path) -> str:
    """From the last line of the log before the kill."""
    lines = (folder / "service.log").read_text(errors="replace").splitlines()
    last = next((line for line in reversed(lines) if '"event": "' in line), "")
    return last.partition('"event": "')[2].partition('"')[0] or "start"


def _wait_until_quiet(folder: Path, studies: int) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with sqlite3.connect(f"file:{folder / 'state/journal.sqlite'}?mode=ro", uri=True) as journal:
            (jobs,) = journal.execute("SELECT COUNT(*) FROM jobs WHERE state = 'done'").fetchone()
            (left,) = journal.execute("SELECT COUNT(*) FROM deliveries WHERE state != 'done'").fetchone()
            (receiving,) = journal.execute("SELECT COUNT(*) FROM studies WHERE state = 'receiving'").fetchone()
        if jobs >= studies and not left and not receiving:
            return
        time.sleep(0.5)


def _faults(folder: Path, orthanc: Orthanc, sent: list[list[Dataset]], acknowledged: set[str]) -> list[str]:
    faults: list[str] = []
    journal = Journal(folder / "state")
    if not journal.is_intact():
        faults.append("the journal is damaged")
    for number, study in enumerate(sent):
        uid = study[0].StudyInstanceUID
        missing = [ds for ds in study if journal.studies.instance(ds.SOPInstanceUID) is None]
        if missing:
            faults.append(f"study {number}: {len(missing)} instances that were acknowledged are not in the journal")
        jobs = [job for job in journal.jobs.of_study(uid) if job.state == "done"]
        final = [job for job in jobs if job.through == max(job.through for job in jobs)]
        if len(final) != 1:
            faults.append(f"study {number}: {len(final)} results of the complete series")
        for job in journal.jobs.of_study(uid):
            runs = folder / "state/jobs" / job.key / "runs.txt"
            if runs.is_file() and len(set(runs.read_text().split())) != 1:
                faults.append(f"study {number}: a job ran on different images")
        there = orthanc.instances_by_modality(uid)
        expected = OBJECTS * len(jobs)
        if sum(map(len, there.values())) != expected:
            faults.append(f"study {number}: {sum(map(len, there.values()))} objects arrived, not {expected}")
    if {ds.SOPInstanceUID for study in sent for ds in study} != acknowledged:
        faults.append("not everything was acknowledged")
    journal.close()
    if list((folder / "state/incoming").iterdir()):
        faults.append("partial files were left behind")
    return faults
