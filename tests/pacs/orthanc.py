"""A real Orthanc on loopback in a temporary folder: for the tests and the benchmarks of the service."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin")
PLUGINS = Path("/usr/share/orthanc/plugins")
WHY_NOT = "needs Orthanc (apt-get install orthanc orthanc-dicomweb)"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Orthanc:
    """Keeps its data and ports when it is stopped and started again."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.http_port, self.dicom_port = folder, free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.web = f"{self.url}/dicom-web"
        self._settings = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": "ORTHANC",
            "DicomCheckCalledAet": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "UnknownSopClassAccepted": True,
            "StableAge": 1,
            "Plugins": [str(PLUGINS)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        } | settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Orthanc:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(self._settings))
        log = (self.folder / "orthanc.log").open("ab")
        self._process = subprocess.Popen([str(PROGRAM), str(file)], stdout=log, stderr=log)
        for _ in range(300):
            with contextlib.suppress(OSError):
                self.get("/system")
                return self
            time.sleep(0.1)
        raise RuntimeError(f"Orthanc did not start; see {self.folder / 'orthanc.log'}")

    def stop(self, *, kill: bool = False) -> None:
        if self._process is not None:
            self._process.kill() if kill else self._process.terminate()
            self._process.wait()
            self._process = None

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def file(self, instance: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}/instances/{instance}/file", timeout=30) as answer:
            return answer.read()

    def upload(self, content: bytes) -> None:
        request = urllib.request.Request(f"{self.url}/instances", data=content, method="POST")
        urllib.request.urlopen(request, timeout=30).close()

    def set(self, path: str, value: Any, method: str = "PUT") -> None:
        request = urllib.request.Request(self.url + path, data=json.dumps(value).encode(), method=method)
        urllib.request.urlopen(request, timeout=30).close()

    def instances_by_modality(self, study: str) -> dict[str, list[str]]:
        """SOP Instance UIDs of a study (by StudyInstanceUID), by the modality of their series."""
        found: dict[str, list[str]] = {}
        for identifier in self.find("Series", {"StudyInstanceUID": study}):
            series = self.get(f"/series/{identifier}")
            for instance in series["Instances"]:
                uid = self.get(f"/instances/{instance}")["MainDicomTags"]["SOPInstanceUID"]
                found.setdefault(series["MainDicomTags"]["Modality"], []).append(uid)
        return found

    def find(self, level: str, query: dict[str, str]) -> list[str]:
        """Orthanc's identifiers of what has these tags."""
        body = json.dumps({"Level": level, "Query": query}).encode()
        with urllib.request.urlopen(f"{self.url}/tools/find", data=body, timeout=30) as answer:
            return json.load(answer)
