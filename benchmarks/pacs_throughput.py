"""How fast the service takes studies, beside what Orthanc takes of the same sender on the same machine.

    python -m benchmarks.pacs_throughput [STUDIES] [SLICES]

Four peers send at once, by C-STORE from processes of their own, slices of 512 x 512: first to one, then to the
other, in turns. Prints one JSON line with slices per second, their ratio and the service's memory.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.pacs.orthanc import PROGRAM, WHY_NOT, Orthanc, free_port
from tests.pacs.studies import ct_study, write_study

PEERS, TURNS = 4, 3

_SENDER = """
import sys
from pathlib import Path
import pydicom
from tests.pacs.sending import send
port, called, calling, *folders = sys.argv[1:]
studies = [[pydicom.dcmread(file) for file in sorted(Path(folder).iterdir())] for folder in folders]
print("ready", flush=True)
sys.stdin.readline()
for study in studies:
    statuses = send(study, int(port), calling=calling, called=called)
    assert statuses == [0] * len(study), statuses
"""


def main(studies: int, slices: int) -> int:
    if PROGRAM is None:
        print(WHY_NOT, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        orthanc = Orthanc(folder / "orthanc", OverwriteInstances=True, DicomThreadsCount=PEERS).start()
        port = free_port()
        service = _start_service(folder, port, orthanc)
        rates: dict[str, list[float]] = {"orthanc": [], "service": []}
        try:
            for turn in range(TURNS):
                sent = [folder / f"sent{turn}" / str(k) for k in range(studies)]
                for k, place in enumerate(sent):
                    write_study(place, ct_study(f"throughput {turn} {k}", slices, 512))
                for kind, target, called in (
                    ("orthanc", orthanc.dicom_port, "ORTHANC"),
                    ("service", port, "KLIP"),
                ):
                    rates[kind].append(studies * slices / _send(sent, target, called))
            memory = _peak_mb(service.pid)
        finally:
            service.terminate()
            service.wait()
            orthanc.stop()
    median = {kind: statistics.median(values) for kind, values in rates.items()}
    ratio = median["service"] / median["orthanc"]
    words = {kind: [round(value, 1) for value in values] for kind, values in rates.items()}
    print(json.dumps({"slices_per_s": words, "ratio": round(ratio, 2), "service_peak_mb": memory}))
    return 0


def _start_service(folder: Path, port: int, orthanc: Orthanc) -> subprocess.Popen[bytes]:
    """Nothing is processed meanwhile: receiving alone is measured."""
    config = folder / "service.toml"
    config.write_text(
        f"""
state = "state"
[listener]
port = {port}
peers = [{", ".join(f'{{ ae_title = "PEER{k}" }}' for k in range(PEERS))}]
[rules]
quiet_s = 3600
[[destinations]]
name = "pacs"
kind = "dicom"
host = "127.0.0.1"
port = {orthanc.dicom_port}
ae_title = "ORTHANC"
"""
    )
    log = (folder / "service.log").open("ab")
    process = subprocess.Popen([sys.executable, "-m", "klip_engine", "serve", str(config)], stdout=log, stderr=log)
    while b'"started"' not in (folder / "service.log").read_bytes():
        time.sleep(0.1)
    return process


def _send(folders: list[Path], port: int, called: str) -> float:
    """Seconds from the first to the last byte of all peers."""
    peers = [
        subprocess.Popen(
            [sys.executable, "-c", _SENDER, str(port), called, f"PEER{k}", *map(str, folders[k::PEERS])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for k in range(PEERS)
    ]
    for peer in peers:
        assert peer.stdout is not None
        peer.stdout.readline()
    began = time.perf_counter()
    for peer in peers:
        peer.communicate(b"go\n")
    if any(peer.returncode for peer in peers):
        raise RuntimeError("a peer could not send")
    return time.perf_counter() - began


def _peak_mb(process: int) -> int:
    """Highest resident memory of a process so far (Linux)."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024


if __name__ == "__main__":
    sys.exit(main(*(int(word) for word in (sys.argv[1:] + ["20", "20"][len(sys.argv) - 1 :]))))
