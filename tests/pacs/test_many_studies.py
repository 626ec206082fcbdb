"""20 studies from 4 peers at once: everything that was acknowledged is processed, in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from klip_engine.pacs.config import Listener, Peer, Rules
from tests.pacs.conftest import by_store, config, wait_for
from tests.pacs.sending import send
from tests.pacs.studies import ct_study

PEERS, STUDIES = 4, 20
ROOT = Path(__file__).parents[2]


def test_twenty_studies_from_four_peers(orthanc, running, tmp_path):
    listener = Listener(0, tuple(Peer(f"PEER{k}") for k in range(PEERS)))
    settings = config(tmp_path, by_store(orthanc, objects=("sr",)), listener=listener, rules=Rules(quiet_s=1.0))
    service = running(settings)
    studies = [ct_study(f"storm of studies {k}", 8) for k in range(STUDIES)]
    statuses: list[int] = []

    def peer(number: int) -> None:
        for study in studies[number::PEERS]:
            statuses.extend(send(study, service.listener.port, calling=f"PEER{number}"))

    peers = [threading.Thread(target=peer, args=(k,)) for k in range(PEERS)]
    for one in peers:
        one.start()
    for one in peers:
        one.join()
    assert statuses == [0] * (8 * STUDIES)
    wait_for(lambda: service.journal.deliveries.counts() == {("pacs", "done"): STUDIES}, 240)
    for study in studies:
        assert len(orthanc.instances_by_modality(study[0].StudyInstanceUID)["SR"]) == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory as Linux tells it")
def test_memory_stays_bounded_while_much_is_received(tmp_path):
    """A process of its own with four peers that send 160 MB: its peak is told by the operating system."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.pacs.receiving", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    facts = json.loads(ended.stdout.splitlines()[-1])
    assert facts["received_mb"] > 150
    assert facts["peak_mb"] - facts["before_mb"] < 64
