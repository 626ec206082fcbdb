"""Storage commitment: asked for, answered over an association of its own, and what happens where it is not."""

from __future__ import annotations

import pytest

from klip_engine.pacs.config import Listener, Peer
from tests.pacs.conftest import by_store, config, wait_for
from tests.pacs.orthanc import PROGRAM, WHY_NOT, Orthanc, free_port
from tests.pacs.peers import archive
from tests.pacs.sending import send
from tests.pacs.studies import ct_study
from tests.pacs.test_delivery import to


def test_orthanc_commits(running, tmp_path, tmp_path_factory):
    if PROGRAM is None:
        pytest.skip(WHY_NOT)
    port = free_port()
    modality = {"AET": "KLIP", "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
    orthanc = Orthanc(tmp_path_factory.mktemp("commits"), DicomModalities={"klip": modality}).start()
    try:
        listener = Listener(port, (Peer("SCANNER"), Peer("ORTHANC")))
        service = running(config(tmp_path, by_store(orthanc, commitment=True), listener=listener))
        send(ct_study("committed"), service.listener.port)
        wait_for(lambda: len(running.events("committed")) == 4)
        assert service.journal.deliveries.counts() == {("pacs", "done"): 4}
    finally:
        orthanc.stop(kill=True)


def test_a_peer_that_does_not_offer_it_is_believed(running, tmp_path):
    listener = Listener(0, (Peer("SCANNER"), Peer("ARCHIVE")))
    with archive() as peer:
        service = running(config(tmp_path, to(peer, commitment=True), listener=listener))
        send(ct_study("not offered"), service.listener.port)
        wait_for(lambda: service.journal.deliveries.counts() == {("archive", "done"): 4})
        assert len(peer.arrived) == 4
