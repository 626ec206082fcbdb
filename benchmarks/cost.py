"""What `detect` costs: wall time against time inside the network, evaluations, and whether results repeat.

    python benchmarks/cost.py [--repeats 3] [--preset default]

On the demo CT, after one short run that is not counted (imports, caches).
"""

from __future__ import annotations

import argparse

import numpy as np

from klip_engine import detect
from klip_engine.demo import demo_ct
from klip_engine.io import read_ct
from klip_engine.presets import PRESETS
from klip_engine.volume import CTVolume, Geometry


def first_slices(volume: CTVolume, count: int) -> CTVolume:
    geometry = volume.geometry
    size = (*geometry.size[:2], count)
    return CTVolume(volume.hu[:count], Geometry(size, geometry.spacing, geometry.origin, geometry.direction))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--preset", default="default", choices=list(PRESETS))
    parser.add_argument("--slices", type=int, default=24)
    arguments = parser.parse_args()
    volume = first_slices(read_ct(demo_ct()).volume, arguments.slices)
    detect(first_slices(volume, 2), preset=arguments.preset)
    runs = [detect(volume, preset=arguments.preset) for _ in range(arguments.repeats)]
    ratios = [run.timing["total_s"] / run.timing["network_s"] for run in runs]
    sampling = PRESETS[arguments.preset].sampling
    per_sample = runs[0].timing["network_evaluations"] / len(runs[0].slices) / sampling.samples
    seconds = [run.timing["total_s"] / len(run.slices) for run in runs]
    print(f"wall / network: {np.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]")
    print(f"seconds per slice: {np.median(seconds):.2f} [{min(seconds):.2f}, {max(seconds):.2f}]")
    print(f"network evaluations per posterior sample: {per_sample:g}")
    same = all(np.array_equal(runs[0].score, run.score) for run in runs[1:])
    print(f"same seed, same bits: {same}")
    other = detect(volume, preset=arguments.preset, batch_slices=3)
    print(f"batches of 3 slices, same label map: {np.array_equal(runs[0].regions, other.regions)}")


if __name__ == "__main__":
    main()
