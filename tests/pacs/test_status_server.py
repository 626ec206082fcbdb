"""The server below the status page survives what is sent to it; the configuration keeps it on this computer."""

from __future__ import annotations

import socket
import time
from http.client import HTTPConnection

import pytest

from klip_engine.errors import InputError, UsageError
from klip_engine.pacs.check import check_service
from klip_engine.pacs.config import ServiceConfig, Status, load_config
from klip_engine.pacs.event_log import EventLog
from klip_engine.pacs.status import StatusServer
from klip_engine.pacs.status import server as server_module


@pytest.fixture
def server(scene):
    one = StatusServer(scene.config.status, scene.watched, scene.journal, lambda *_, **__: None)
    one.start()
    yield one
    one.stop()


def ask(port: int, method: str, target: str, body: str | None = None, **headers: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, target, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_server_answers(server):
    assert ask(server.port, "GET", "/health")[0] == 200
    assert ask(server.port, "HEAD", "/metrics") == (200, b"")
    assert ask(server.port, "GET", "/nothing")[0] == 404
    assert ask(server.port, "PUT", "/")[0] == 501
    assert ask(server.port, "POST", "/retry", "x" * 5000)[0] == 413
    assert ask(server.port, "POST", "/retry", "what=all")[0] == 403


def test_slow_and_many_connections_do_not_stop_it(server, monkeypatch):
    monkeypatch.setattr(server_module, "_LONGEST_S", 0.5)
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    for one in held:
        one.sendall(b"GET / HT")
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            if ask(server.port, "GET", "/health")[0] == 200:
                break
        except OSError:
            pass
        time.sleep(0.1)
    else:
        pytest.fail("it did not answer again")
    for one in held:
        one.close()


def test_nonsense_is_survived(server):
    for content in (
        b"\0\xff\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /retry HTTP/1.0\r\n\r\n",
        b"A" * 70000,
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as one:
            try:
                one.sendall(content + b"\r\n\r\n")
                while one.recv(4096):
                    pass
            except OSError:
                continue
    assert ask(server.port, "GET", "/health")[0] == 200


def test_a_taken_port_is_said(scene, server):
    other = StatusServer(Status(port=server.port), scene.watched, scene.journal, EventLog())
    with pytest.raises(UsageError, match="choose another status.port"):
        other.start()


def configured(tmp_path, status: str) -> ServiceConfig:
    file = tmp_path / "klip.toml"
    file.write_text(
        'state = "state"\n[[folders]]\npath = "in"\n[[destinations]]\nname = "web"\nkind = "dicomweb"\n'
        f'url = "http://127.0.0.1:8042/dicom-web"\n{status}\n'
    )
    return load_config(file)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.1.2.3"])
def test_beyond_this_computer_only_on_request(tmp_path, address):
    with pytest.raises(InputError, match=r"status\.beyond_loopback = true"):
        configured(tmp_path, f'[status]\nport = 8081\naddress = "{address}"')
    settings = configured(tmp_path, f'[status]\nport = 8081\naddress = "{address}"\nbeyond_loopback = true')
    assert settings.status.address == address


def test_an_address_is_no_name(tmp_path):
    with pytest.raises(InputError, match=r"status\.address: 'here' is not an IP address"):
        configured(tmp_path, '[status]\nport = 8081\naddress = "here"')


def test_log_settings(tmp_path):
    assert configured(tmp_path, '[log]\nfile = "klip.log"').log.file == tmp_path / "klip.log"
    with pytest.raises(InputError, match=r"log\.max_mb has to be at least 1"):
        configured(tmp_path, "[log]\nmax_mb = 0")


def test_serve_check_finds_a_taken_port(tmp_path, server):
    settings = configured(tmp_path, f"[status]\nport = {server.port}")
    found = next(one for one in check_service(settings) if one.what == f"status page, port {server.port}")
    assert not found.is_well
    assert "the port cannot be used" in found.cure
