"""The DICOM door: who may send, what is taken, and what a sender is told."""

from __future__ import annotations

import dataclasses
import random
import shutil
import struct
from collections import namedtuple

import pydicom
import pytest
from pynetdicom import AE

from klip_engine.errors import UsageError
from klip_engine.pacs.config import Destination, Listener, Peer
from klip_engine.pacs.listener import Listener as Door
from tests.pacs.conftest import config, wait_for
from tests.pacs.fuzz import associate_request, malformed_association, store_mutated
from tests.pacs.sending import send
from tests.pacs.studies import as_bytes, ct_study

NOWHERE = Destination("nowhere", "dicom", host="127.0.0.1", port=1, ae_title="NOBODY")


def listening(**further) -> Listener:
    return Listener(port=0, peers=(Peer("SCANNER"), Peer("FAR", ("192.0.2.0/24",))), **further)


def started(running, tmp_path, **further):
    rules = {"listener": listening(**further)}
    return running(dataclasses.replace(config(tmp_path / "state", NOWHERE), **rules))


def spooled(service) -> list:
    return sorted((service.config.state / "studies").glob("*/*/*.dcm"))


def test_the_data_set_is_kept_byte_for_byte(running, tmp_path):
    service = started(running, tmp_path)
    study = ct_study("bytes", 3)
    study[0].add_new(0x00091001, "UN", b"\x01\x02\x03private")
    assert send(study, service.listener.port) == [0, 0, 0]
    kept = {data_set(file.read_bytes()) for file in spooled(service)}
    assert kept == {data_set(as_bytes(sent)) for sent in study}
    assert {pydicom.dcmread(file).file_meta.TransferSyntaxUID for file in spooled(service)} == {
        "1.2.840.10008.1.2.1"
    }


def data_set(file: bytes) -> bytes:
    """What follows the file meta information (PS3.10 7.1)."""
    return file[144 + struct.unpack("<I", file[140:144])[0] :]


@pytest.mark.parametrize(
    ("calling", "called"), [("STRANGER", "KLIP"), ("SCANNER", "OTHER"), ("FAR", "KLIP"), ("scanner", "KLIP")]
)
def test_unknown_titles_and_foreign_addresses_are_refused(running, tmp_path, calling, called):
    service = started(running, tmp_path)
    assert send(ct_study("stranger", 1), service.listener.port, calling=calling, called=called) == []
    assert spooled(service) == []
    assert running.events("association-rejected")


def test_c_echo(running, tmp_path):
    service = started(running, tmp_path)
    entity = AE(ae_title="SCANNER")
    entity.add_requested_context("1.2.840.10008.1.1")
    association = entity.associate("127.0.0.1", service.listener.port, ae_title="KLIP")
    assert association.send_c_echo().Status == 0
    association.release()


def test_an_instance_that_comes_again_is_kept_once_and_the_first_contents_stay(running, tmp_path):
    service = started(running, tmp_path)
    study = ct_study("twice", 2)
    assert send([*study, *study], service.listener.port) == [0] * 4
    changed = pydicom.Dataset(study[0])
    changed.file_meta = study[0].file_meta
    changed.SeriesDescription = "changed"
    assert send([changed], service.listener.port) == [0]
    assert len(spooled(service)) == 2
    assert len(running.events("instance-again")) == 2
    assert len(running.events("instance-differs")) == 1
    assert {pydicom.dcmread(file).SeriesDescription for file in spooled(service)} == {"Thorax"}


def test_a_full_disk_is_said_politely_and_nothing_is_kept(running, tmp_path, monkeypatch):
    service = started(running, tmp_path)
    study = ct_study("full", 2)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 0))
    assert send(study, service.listener.port) == [0xA700, 0xA700]
    assert spooled(service) == []
    assert not list((service.config.state / "incoming").iterdir())
    monkeypatch.undo()
    assert send(study, service.listener.port) == [0, 0]


def test_a_data_set_without_series_and_one_of_another_uid_are_refused(running, tmp_path):
    service = started(running, tmp_path)
    study = ct_study("odd", 2)
    del study[0].SeriesInstanceUID
    assert send([study[0]], service.listener.port) == [0xC000]
    entity = AE(ae_title="SCANNER")
    entity.add_requested_context(study[1].SOPClassUID, study[1].file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", service.listener.port, ae_title="KLIP")
    original = association.dimse.send_msg

    def announce_another(message, context):
        message.AffectedSOPInstanceUID = "1.2.3.4"
        original(message, context)

    association.dimse.send_msg = announce_another
    assert association.send_c_store(study[1]).Status == 0xA900
    association.release()
    assert spooled(service) == []


def test_a_message_beyond_the_size_limit_ends_the_association(running, tmp_path):
    service = started(running, tmp_path, max_instance_mb=1)
    large = ct_study("large", 1, 1200)
    assert send(large, service.listener.port) in ([], [-1])
    assert spooled(service) == []
    assert send(ct_study("small", 2), service.listener.port) == [0, 0]


def test_the_memory_of_all_associations_is_bounded(running, tmp_path):
    service = started(running, tmp_path, max_memory_mb=1)
    assert send(ct_study("large", 1, 900), service.listener.port) in ([], [-1])
    assert send(ct_study("small", 2), service.listener.port) == [0, 0]


def test_a_second_service_on_the_port_or_the_folder_is_refused(running, tmp_path):
    service = started(running, tmp_path)
    taken = dataclasses.replace(listening(), port=service.listener.port)
    with pytest.raises(UsageError, match=r"cannot listen on 127\.0\.0\.1"):
        Door(taken, service.spool, service.pseudonyms, service.events).start()
    with pytest.raises(UsageError, match="running already with the folder"):
        type(service)(service.config, service.events)


def test_malformed_associations_leave_the_door_open(running, tmp_path):
    service = started(running, tmp_path, max_associations=4)
    chance = random.Random(5)
    for _ in range(40):
        malformed_association(chance, service.listener.port)
    assert send(ct_study("after", 2), service.listener.port) == [0, 0]
    wait_for(lambda: not service.listener._server.active_associations, 15)


def test_the_hand_written_request_is_a_good_one(running, tmp_path):
    """Else the mutations above would be nothing but noise."""
    import socket

    service = started(running, tmp_path)
    with socket.create_connection(("127.0.0.1", service.listener.port), timeout=10) as peer:
        peer.sendall(associate_request())
        assert peer.recv(1) == struct.pack(">B", 2)  # A-ASSOCIATE-AC


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mutated_files_are_taken_or_refused_and_stay_in_the_spool(running, tmp_path, seed):
    service = started(running, tmp_path)
    taken, refused = store_mutated(service.spool, 150, seed)
    assert taken > 10
    assert refused > 10
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert not list((service.config.state / "incoming").iterdir())
    assert service.journal.is_intact()
