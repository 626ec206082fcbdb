"""Time and memory of a clinical scan: the check of its geometry, rebinning of a helix, a step-and-shoot scan.

    python -m benchmarks.helix [--turns 3] [--views 1000] [--columns 736] [--rows 64]

Rebinning is measured per slice in CPU seconds of this process, so that a busy machine does not count; its cost per
slice does not depend on the length of the scan, its memory does. The values are those of a water cylinder: neither
time nor memory depends on them.
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from klip_engine.projections import Detector, Projections, Trajectory
from klip_engine.scans import doubts_about, reconstruct, to_slices

RADIUS, DISTANCE, PITCH_MM, ROW_MM, FEED_MM = 595.0, 1085.6, 1.2858, 1.0, 35.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=float, default=3.0)
    parser.add_argument("--views", type=int, default=1000, help="in a turn")
    parser.add_argument("--columns", type=int, default=736)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--step-slices", type=int, default=64, help="of the step-and-shoot scan; 0: leave it out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.step_slices:
        angles = np.tile(2 * math.pi * np.arange(720) / 720, options.step_slices)
        step = scan(angles, np.repeat(3.0 * np.arange(options.step_slices), 720), options.columns, 1)
        print(f"{options.step_slices} slices, 720 views, {options.columns} bins: {size_gb(step):.2f} GB of values")
        slices = timed("to_slices", lambda: to_slices(step))
        timed("consistency check", lambda: doubts_about(step))
        timed("filtered back-projection", lambda: reconstruct(slices))
        del step, slices
    count = round(options.turns * options.views)
    angles = 2 * math.pi * np.arange(count) / options.views
    helix = scan(angles, FEED_MM * np.arange(count) / options.views, options.columns, options.rows)
    print(f"helix: {count} views, {options.columns} x {options.rows}: {size_gb(helix):.2f} GB of values")
    timed("consistency check", lambda: doubts_about(helix))
    few = timed("rebinning 4 slices", lambda: to_slices(helix, at_most=4))
    print(f"{len(few)} slices came of it")


def scan(angles: np.ndarray, z: np.ndarray, columns: int, rows: int) -> Projections:
    """A water cylinder of 300 mm off the axis, without noise."""
    u = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    d = np.stack([-np.sin(angles), np.cos(angles), 0 * angles], axis=1)
    source = -RADIUS * d
    source[:, 2] = z
    centre = (DISTANCE - RADIUS) * d
    centre[:, 2] = z
    gamma = (np.arange(columns) - (columns - 1) / 2) * PITCH_MM / DISTANCE
    away = RADIUS * np.sin(gamma) + 30 * np.cos(angles[:, None] + gamma)
    chord = 0.0192 * 2 * np.sqrt(np.maximum(150**2 - away**2, 0))
    values = np.repeat(chord.astype(np.float32)[:, None], rows, axis=1)
    detector = Detector(
        "cylindrical", columns, rows, PITCH_MM, ROW_MM, ((columns - 1) / 2, (rows - 1) / 2), DISTANCE
    )
    v = np.tile([0.0, 0.0, 1.0], (len(angles), 1))
    return Projections(values, Trajectory(centre, u, v, source_mm=source), detector, "fan", 0.0192, i0=1e6)


def size_gb(projections: Projections) -> float:
    return projections.line_integrals.nbytes / 1e9


def timed(what: str, work: Callable[[], Any]) -> Any:
    start = time.process_time()
    result = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"  {what}: {time.process_time() - start:.1f} s of CPU, peak memory so far {peak:.2f} GB", flush=True)
    return result


if __name__ == "__main__":
    main()
