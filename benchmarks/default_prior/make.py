"""Train the default prior on the shared CT collection: writes the two tables, then runs `klip-engine train`, then
`klip-engine calibrate` with the training patients' slices as reference.

    python benchmarks/default_prior/make.py ../shared/ct -o runs/default [--minutes 48] [--processes 2] [--resume]

How patients unseen score beside these is then measured and kept by benchmarks/unseen_patients.py.

48 minutes by the clock; the processes, one a core, share batches of 16. Patients LIDC-IDRI-0314 and C3N-00249 are
kept for validation. Only slices marked as healthy-looking are used.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

CALIBRATED = ("default", "fast", "sparse-24")
"""Presets whose null distributions the default prior brings along."""
BATCH = 16
PER_SCAN = 15
"""Healthy slices of a scan kept beside the prior."""
VALIDATION = ("LIDC-IDRI-0314", "C3N-00249")
HEALTHY = {"series/acrin-flt-breast-001-chest.nrrd": "0-11"}
"""Where the collection's index says more: slices 12 to 18 show an implanted port, those above its catheter."""


def write_tables(ct: Path, folder: Path) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[bool, list[list[str]]] = {True: [], False: []}
    with (ct / "index.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            healthy = HEALTHY.get(row["file"], row["healthy_looking"])
            if healthy != "no":
                slices = "all" if healthy == "yes" else healthy.replace(" and ", ", ")
                file = str((ct / row["file"]).resolve())
                rows[row["patient"] in VALIDATION].append([file, row["patient"], slices])
    paths = {True: folder / "validation.csv", False: folder / "train.csv"}
    for kind, path in paths.items():
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([["file", "patient", "slices"], *rows[kind]])
    return paths[False], paths[True]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--minutes", default="48")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    train, validation = write_tables(arguments.ct, arguments.out.parent / "tables")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(arguments.processes),
        "-m", "klip_engine", "train", str(train), "-o", str(arguments.out), "--validation", str(validation),
        "--minutes", arguments.minutes, "--bfloat16", "--batch-size", str(BATCH // arguments.processes),
        "--learning-rate", "3e-3", "--note", str(Path(__file__).with_name("note.md")),
    ]  # fmt: skip
    code = subprocess.run(command + ["--resume"] * arguments.resume, check=False).returncode
    reference = ["--healthy", str(train), "--per-scan", str(PER_SCAN)]
    for preset in CALIBRATED if code == 0 else ():
        calibrate = [sys.executable, "-m", "klip_engine", "calibrate", str(arguments.out), "--preset", preset]
        code = code or subprocess.run(calibrate + reference, check=False).returncode
        reference = []
    sys.exit(code)


if __name__ == "__main__":
    main()
