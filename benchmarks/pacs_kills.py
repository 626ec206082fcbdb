"""200 kills of the service at random moments, against a real Orthanc.

    python -m benchmarks.pacs_kills [KILLS] [SEED]

Prints one JSON line: how many kills, during what, and every fault found. A fault is an acknowledged instance that
is gone, a study without or with two results of its complete series, an object that did not arrive, a damaged
journal.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.pacs.kills import storm
from tests.pacs.orthanc import PROGRAM, WHY_NOT, Orthanc


def main(kills: int, seed: int) -> int:
    if PROGRAM is None:
        print(WHY_NOT, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        orthanc = Orthanc(Path(folder, "orthanc")).start()
        try:
            outcome = storm(Path(folder, "service"), orthanc, kills=kills, studies=max(2, kills), seed=seed)
        finally:
            orthanc.stop()
    print(json.dumps(vars(outcome) | {"seed": seed}))
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main(*(int(word) for word in (sys.argv[1:] + ["200", "0"][len(sys.argv) - 1 :]))))
