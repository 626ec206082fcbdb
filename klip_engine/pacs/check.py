"""`klip-engine serve --check`: is everything there that the service needs? One line for each, with the cure."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from klip_engine.errors import KlipError
from klip_engine.files import check_writable
from klip_engine.pacs.bounded_transport import server_context
from klip_engine.pacs.config import Destination, DicomwebWatch, Listener, ServiceConfig
from klip_engine.pacs.sending import Verdict, read_password
from klip_engine.pacs.store_scu import StoreSender
from klip_engine.pacs.stow import StowSender, web_client


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. cure: what to do where it is not well."""

    what: str
    is_well: bool
    cure: str = ""


def check_service(config: ServiceConfig) -> Iterator[Finding]:
    """Look at everything, whatever fails before; each finding as soon as it is there."""
    yield _try("state folder", lambda: _writable(config.state))
    if config.listener is not None:
        yield _try(f"listener, port {config.listener.port}", lambda: _listener(config.listener))
    if config.status is not None:
        status = config.status
        yield _try(f"status page, port {status.port}", lambda: _free_port(status.address, status.port))
    if config.log.file is not None:
        log = config.log.file.parent
        yield _try(f"log folder {log}", lambda: _writable(log))
    for folder in config.folders:
        yield _try(f"folder {folder.path}", lambda folder=folder: _writable(folder.path))  # type: ignore[misc]
    for watch in config.dicomweb:
        yield _try(f"watched server {watch.name}", lambda watch=watch: _watched(watch))  # type: ignore[misc]
    for one in config.destinations:
        yield _try(f"destination {one.name}", lambda one=one: _destination(one))  # type: ignore[misc]
    yield _try(f"prior {config.engine.prior}", lambda: _prior(config.engine.prior))
    yield _try("engine", _engine)


def _try(what: str, look: Callable[[], str]) -> Finding:
    """`look` returns the cure, empty where all is well."""
    try:
        cure = look()
    except KlipError as error:
        cure = str(error)
    except requests.RequestException as error:
        cure = f"the server cannot be reached ({type(error).__name__}); is it running, is the address right?"
    except OSError as error:
        cure = f"{error.strerror or error}"
    return Finding(what, not cure, cure)


def _writable(folder: Path) -> str:
    check_writable(folder, "make it writable for the service's user")
    return ""


def _listener(listener: Listener | None) -> str:
    assert listener is not None
    if listener.tls is not None:
        ca = str(listener.tls.ca) if listener.tls.ca else None
        server_context(str(listener.tls.certificate), str(listener.tls.key), ca)
    return _free_port(listener.address, listener.port)


def _free_port(address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return f"the port cannot be used ({error.strerror}); is the service running already?"
    return ""


def _watched(watch: DicomwebWatch) -> str:
    password = read_password(watch.password_file)
    web_client(watch.url, watch.user, password, 20).search_for_series(search_filters={"Modality": "CT"}, limit=1)
    if watch.kind == "orthanc":
        auth = (watch.user, password) if watch.user else None
        requests.get(f"{watch.orthanc_url.rstrip('/')}/changes?limit=1", auth=auth, timeout=20).raise_for_status()
    return ""


def _destination(destination: Destination) -> str:
    sender = StoreSender(destination) if destination.kind == "dicom" else StowSender(destination)
    answer = sender.echo()
    if answer.verdict is Verdict.ARRIVED:
        return ""
    return f"{answer.reason}; check its address, and that it knows this service"


def _prior(name: str) -> str:
    from klip_engine.priors import load_prior

    load_prior(name)
    return ""


def _engine() -> str:
    command = [sys.executable, "-m", "klip_engine", "--version"]
    ended = subprocess.run(command, capture_output=True, timeout=120, check=False)
    return "" if ended.returncode == 0 else "klip-engine does not start; install it again"
