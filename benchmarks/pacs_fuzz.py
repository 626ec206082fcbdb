"""10,000 mutated DICOM files and 1,000 malformed associations: python -m benchmarks.pacs_fuzz [FILES] [SEED].

Prints one JSON line. Any exception but a refusal ends it; in the end the listener still has to take a good study
and nothing may lie outside the state folder.
"""

from __future__ import annotations

import io
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from klip_engine.pacs.event_log import EventLog
from klip_engine.pacs.service import Service
from tests.pacs.conftest import by_store, config
from tests.pacs.fuzz import malformed_association, store_mutated
from tests.pacs.orthanc import Orthanc
from tests.pacs.sending import send
from tests.pacs.studies import ct_study


def main(files: int, seed: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "around")
        nowhere = Orthanc(folder)  # never started: nothing is delivered here
        service = Service(config(folder / "state", by_store(nowhere)), EventLog(io.StringIO()))
        assert service.listener is not None
        service.listener.start()
        began = time.perf_counter()
        taken, refused = store_mutated(service.spool, files, seed)
        chance = random.Random(seed)
        for _ in range(files // 10):
            malformed_association(chance, service.listener.port)
        study = ct_study("after the storm")
        statuses = send(study, service.listener.port)
        outside = [str(path) for path in folder.iterdir() if path.name != "state"]
        partial = list((folder / "state/incoming").iterdir())
        service.listener.stop()
        intact = service.journal.is_intact()
    facts = {"files": files, "taken": taken, "refused": refused, "associations": files // 10, "seed": seed}
    well = statuses == [0] * len(study) and not outside and not partial and intact
    print(
        json.dumps(
            facts
            | {
                "well": well,
                "statuses": statuses,
                "outside": outside,
                "partial": len(partial),
                "seconds": round(time.perf_counter() - began),
            }
        )
    )
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(*(int(word) for word in (sys.argv[1:] + ["10000", "0"][len(sys.argv) - 1 :]))))
