"""Reads damaged DICOM by the thousand: each file must be read or refused with a KlipError, soon, in little memory.

    python -m benchmarks.fuzz_dicom --count 10000 [--first SEED] [--only jpeg]

Prints the seed of every file that breaks this rule and a summary; needs the tests beside it and DCMTK.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import resource
import signal
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from klip_engine.errors import KlipError
from klip_engine.io import read_ct
from tests.io.dicom_mutations import healthy_files, mutated

SECONDS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the name of the healthy file to damage")
    asked = parser.parse_args()
    faulthandler.enable()
    signal.signal(signal.SIGALRM, _too_slow)
    outcomes: Counter[str] = Counter()
    broken = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        healthy = [(path, path.read_bytes()) for path in healthy_files(folder) if asked.only in path.name]
        before = _peak_mb()
        for seed in range(asked.first, asked.first + asked.count):
            path, content = healthy[seed % len(healthy)]
            target = folder / f"mutated{path.suffix}"
            target.write_bytes(mutated(content, seed))
            (folder / "seed").write_text(str(seed))  # survives a crash of the interpreter
            start = time.perf_counter()
            signal.alarm(SECONDS)
            try:
                read_ct(target)
                outcomes["read"] += 1
            except KlipError as error:
                outcomes[type(error).__name__] += 1
            except Exception:
                broken.append(seed)
                print(f"seed {seed} ({path.name}):\n{traceback.format_exc()}")
            finally:
                signal.alarm(0)
            slowest = max(slowest, time.perf_counter() - start)
    summary = {
        "files": asked.count,
        "outcomes": dict(outcomes),
        "broken": broken,
        "slowest_s": round(slowest, 2),
        "memory_growth_mb": round(_peak_mb() - before),
    }
    print(json.dumps(summary))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _too_slow(number: int, frame: object) -> None:
    raise TimeoutError(f"not read or refused within {SECONDS} s")


if __name__ == "__main__":
    main()
