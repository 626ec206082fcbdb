"""A real PACS for tests: Orthanc on free ports of this machine, one for the session."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Orthanc:
    """url: of its REST interface, without a slash at the end; dicom_port and aet: of its DICOM listener."""

    url: str
    dicom_port: int
    aet: str = "ORTHANC"

    def get(self, path: str) -> bytes:
        """The answer to GET, as bytes."""
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            content: bytes = response.read()
        return content

    def json(self, path: str) -> Any:
        """The answer to GET, from JSON."""
        return json.loads(self.get(path))

    def upload(self, content: bytes) -> dict[str, Any]:
        """Store a DICOM file by REST; {"ID", "Status", "ParentStudy", ...}."""
        request = urllib.request.Request(f"{self.url}/instances", data=content, method="POST")
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: dict[str, Any] = json.loads(response.read())
        return answer

    def clear(self) -> None:
        """Forget everything."""
        for patient in self.json("/patients"):
            request = urllib.request.Request(f"{self.url}/patients/{patient}", method="DELETE")
            urllib.request.urlopen(request, timeout=30).close()


@pytest.fixture(scope="session")
def orthanc_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    program = shutil.which("Orthanc", path=f"/usr/sbin{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        pytest.skip("needs Orthanc (Debian: orthanc, orthanc-dicomweb), which is not here")
    folder = tmp_path_factory.mktemp("orthanc")
    http, dicom = _free_ports()
    server = Orthanc(f"http://127.0.0.1:{http}", dicom)
    (folder / "orthanc.json").write_text(json.dumps(_configuration(folder, http, dicom, server.aet)))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "orthanc.json"], cwd=folder, stdout=log, stderr=log)
        try:
            _wait_for(server, process, folder / "log")
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


@pytest.fixture
def orthanc(orthanc_process: Orthanc) -> Orthanc:
    """Orthanc, empty."""
    orthanc_process.clear()
    return orthanc_process


def _configuration(folder: Path, http: int, dicom: int, aet: str) -> dict[str, Any]:
    plugins = Path("/usr/share/orthanc/plugins")
    return {
        "Name": "tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": aet,
        "DicomAlwaysAllowStore": True,
        "UnknownSopClassAccepted": True,
        "OverwriteInstances": False,
        "StableAge": 1,
        "Plugins": [str(path) for path in sorted(plugins.glob("libOrthancDicomWeb.so*"))][:1],
    }


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def _wait_for(server: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            server.json("/system")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise RuntimeError(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")
