"""TLS on both ways: certificates that the other side knows, and the others refused."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from pynetdicom import AE

from klip_engine.pacs.config import Destination, Listener, Peer, Tls
from klip_engine.pacs.sending import Verdict
from klip_engine.pacs.store_scu import StoreSender, client_context
from tests.pacs.conftest import config
from tests.pacs.sending import send
from tests.pacs.studies import ct_study

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates"),
    # pynetdicom's threads die so where a handshake is never finished
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


def certificate(folder: Path, name: str) -> Tls:
    """Self-signed for localhost: it is its own authority."""
    folder.mkdir(exist_ok=True)
    pem, key = folder / f"{name}.pem", folder / f"{name}.key"
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
    subprocess.run([*made, "-keyout", key, "-out", pem, "-days", "2"], check=True, capture_output=True)
    return Tls(pem, key, pem)


@pytest.fixture
def secured(running, tmp_path):
    server = certificate(tmp_path / "tls", "server")
    client = certificate(tmp_path / "tls", "client")
    demanding = Tls(server.certificate, server.key, client.certificate)
    listener = Listener(0, (Peer("SCANNER"),), tls=demanding)
    nowhere = Destination("nowhere", "dicom", host="127.0.0.1", port=1, ae_title="NOBODY")
    service = running(config(tmp_path / "state", nowhere, listener=listener))
    return service, Tls(client.certificate, client.key, server.certificate)


def to(service, tls: Tls | None) -> StoreSender:
    place = {"host": "127.0.0.1", "port": service.listener.port, "ae_title": "KLIP", "calling_ae_title": "SCANNER"}
    return StoreSender(Destination("self", "dicom", **place, tls=tls, timeout_s=5))


def test_a_peer_with_a_known_certificate(secured):
    service, tls = secured
    assert to(service, tls).echo().verdict is Verdict.ARRIVED
    entity = AE(ae_title="SCANNER")
    (dataset,) = ct_study("by TLS", 1, 512)
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate(
        "127.0.0.1", service.listener.port, ae_title="KLIP", tls_args=(client_context(tls), "127.0.0.1")
    )
    assert association.send_c_store(dataset).Status == 0
    association.release()


def test_without_tls_or_with_a_strange_certificate_nobody_gets_in(secured, tmp_path):
    service, tls = secured
    strange = certificate(tmp_path / "tls", "strange")
    assert send(ct_study("in the clear", 1), service.listener.port) == []
    other = Tls(strange.certificate, strange.key, tls.ca)
    assert to(service, other).echo().verdict is not Verdict.ARRIVED
    assert to(service, Tls(tls.certificate, tls.key, strange.certificate)).echo().verdict is Verdict.AWAY


def test_a_connection_that_never_shakes_hands_keeps_nobody_out(secured):
    service, tls = secured
    with socket.create_connection(("127.0.0.1", service.listener.port)):
        assert to(service, tls).echo().verdict is Verdict.ARRIVED


def test_the_client_asks_for_a_certificate_that_it_knows(secured):
    _, tls = secured
    assert client_context(tls).verify_mode is ssl.CERT_REQUIRED
