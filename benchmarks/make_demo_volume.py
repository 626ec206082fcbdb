"""Remakes klip_engine/data/demo: python benchmarks/make_demo_volume.py SOURCE.nrrd [FOLDER]."""

from __future__ import annotations

import argparse
from pathlib import Path

from klip_engine.evaluation.demo_volume import make_demo_volume

DEMO_FOLDER = Path(__file__).parents[1] / "klip_engine" / "data" / "demo"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="cptac-pda-c3n-00249-chest-abdomen.nrrd")
    parser.add_argument("folder", type=Path, nargs="?", default=DEMO_FOLDER)
    arguments = parser.parse_args()
    print(make_demo_volume(arguments.source, arguments.folder).record)


if __name__ == "__main__":
    main()
