"""A listener in a process of its own that four peers, processes too, send 160 MB to; prints its peak memory."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

from klip_engine.pacs.config import Destination, Listener, Peer, Rules
from klip_engine.pacs.event_log import EventLog
from klip_engine.pacs.service import Service
from tests.pacs.conftest import config

_PEER = """
import sys
from tests.pacs.sending import send
from tests.pacs.studies import ct_study
number, port = sys.argv[1:]
for k in range(4):
    assert send(ct_study(f"large {number} {k}", 5, 1024), int(port), calling=f"PEER{number}") == [0] * 5
"""


def main(folder: Path) -> None:
    nowhere = Destination("nowhere", "dicom", host="127.0.0.1", port=1, ae_title="NOBODY")
    listener = Listener(0, tuple(Peer(f"PEER{k}") for k in range(4)))
    service = Service(
        config(folder, nowhere, listener=listener, rules=Rules(quiet_s=3600)), EventLog(io.StringIO())
    )
    service.start()
    before = _peak_mb()
    peers = [subprocess.Popen([sys.executable, "-c", _PEER, str(k), str(service.listener.port)]) for k in range(4)]
    if any(peer.wait() for peer in peers):
        raise SystemExit("a peer could not send")
    received = sum(file.stat().st_size for file in folder.glob("studies/*/*/*.dcm")) >> 20
    print(json.dumps({"received_mb": received, "before_mb": before, "peak_mb": _peak_mb()}))
    service.stop()


def _peak_mb() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) >> 10
    raise SystemExit("needs Linux")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
