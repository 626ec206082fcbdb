"""How long it takes to bring a result of 512 x 512 x 300 voxels and 40 findings into a scene, and how much memory.

    python benchmarks/slicer_import.py [--repeats N] [--folder OUT]

Needs slicer-core. Every repeat is a process of its own: the peak of a process cannot be taken back. OUT is made by
the engine's own writer from a made-up score map; name a folder to keep it for another run.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "KLIPExtension")]

SIZE, SPACING = (512, 512, 300), (0.75, 0.75, 1.0)
FINDINGS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "out"
        if not folder.exists():
            write(folder)
        command = [sys.executable, __file__, "--one", "--folder", str(folder)]
        runs = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            for _ in range(arguments.repeats)
        ]
    for name in runs[0]:
        values = [run[name] for run in runs]
        print(f"{name:28s} median {statistics.median(values):8.3f}  {min(values):.3f} to {max(values):.3f}")


def measure(folder: Path) -> dict[str, float]:
    """Seconds, and MiB of resident memory above what the process held before."""
    import SimpleITK  # noqa: F401  what Slicer has loaded anyway
    import slicer  # noqa: F401
    from tests.extension.mrml import Mrml  # isort: skip  (before KLIPLib: it stands in for slicer.i18n)
    from KLIPLib.export_input import export_input
    from KLIPLib.results import import_results, remove_results
    from KLIPLib.threshold import set_rate

    from klip_engine.saved import open_results

    mrml = Mrml()
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ open_results(folder).geometry.matrix
    node = mrml.add_volume(np.zeros(SIZE[::-1], np.int16), matrix)
    figures = {}
    held, peak = _resident(), _Peak()
    figures["import (s)"], result = _timed(lambda: import_results(mrml.scene, folder, node))
    figures["import, peak (MiB)"] = peak.stop() - held
    figures["import, kept (MiB)"] = _resident() - held
    figures["surfaces of that (s)"], _ = _timed(lambda: _surfaces_again(result))
    figures["another rate (s)"], _ = _timed(lambda: set_rate(result, 0.05))
    figures["findings at that rate"] = result.findings.GetTable().GetNumberOfRows()
    figures["back to the first rate (s)"], _ = _timed(lambda: set_rate(result, 0.2))
    figures["segments"] = result.segmentation.GetSegmentation().GetNumberOfSegments()
    figures["remove (s)"], _ = _timed(lambda: remove_results(result))
    with tempfile.TemporaryDirectory() as temporary:
        figures["export of the input (s)"], _ = _timed(lambda: export_input(node, Path(temporary) / "input.nrrd"))
    mrml.close()
    return figures


def _surfaces_again(result) -> None:
    from KLIPLib.segments import make_surfaces

    segmentation = result.segmentation.GetSegmentation()
    segmentation.RemoveRepresentation("Closed surface")
    make_surfaces(result.segmentation)


def write(folder: Path) -> None:
    """Results as the engine writes them: noise in an ellipse of a body, findings of about 15 mm."""
    from klip_engine.detection import Detection, WorkingResult
    from klip_engine.io import write_results
    from klip_engine.marking import mark, slice_scores
    from klip_engine.scoring.null import NullDistribution
    from klip_engine.volume import Geometry

    rng = np.random.default_rng(0)
    target = Geometry(SIZE, SPACING, (-191.6, -191.6, -150.0))
    grid = Geometry((160, 128, 100), (3.0, 3.0, 3.0), (-238.5, -190.5, -149.0))
    z, y, x = np.ogrid[:100, :128, :160]
    body = np.broadcast_to(((x - 80) / 55) ** 2 + ((y - 64) / 42) ** 2 < 1, (100, 128, 160)).copy()
    score = np.where(body, rng.gamma(2.0, 0.15, body.shape), 0).astype(np.float32)
    for number in range(FINDINGS):
        k, j, i = 4 + 92 * number // FINDINGS, 64 + 25 * np.sin(2.4 * number), 80 + 35 * np.cos(2.4 * number)
        score[((z - k) ** 2 + (y - j) ** 2 + (x - i) ** 2 < 2.6**2) & body] = 9 - 0.1 * number
    null = NullDistribution(tuple(np.linspace(1.0, 6.0, 99)), (), {})
    slabs = tuple((3 * n, 3 * n + 3) for n in range(100))
    marked = mark(score, body, grid, slabs, null, 0.2)
    assert len(marked.findings) == FINDINGS, len(marked.findings)
    hu = np.where(body, 40 + rng.normal(0, 15, body.shape), -1000).astype(np.float32)
    detection = Detection(
        working=WorkingResult(hu, hu, score, marked.regions, body, grid, slabs),
        geometry=target,
        source=None,
        slices=slice_scores(score.max(axis=(1, 2)), grid, slabs, null),
        findings=marked.findings,
        threshold=marked.threshold,
        prior={"name": "benchmark", "hash": "none"},
        settings={"false_alarms": 0.2, "score": {"name": "made up"}},
        input={"format": "made up", "slices": SIZE[2]},
        timing={"total_s": 0.0, "network_s": 0.0, "network_evaluations": 0},
        null_maxima=null.maxima,
    )
    write_results(detection, folder)


def _timed(do):
    start = time.perf_counter()
    value = do()
    return round(time.perf_counter() - start, 4), value


class _Peak:
    """The highest resident memory since it was made: the process's own peak, or samples if its past was higher."""

    def __init__(self) -> None:
        self._highest, self._running = 0.0, True
        self._before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> float:
        self._running = False
        self._thread.join()
        lifetime = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return lifetime if lifetime > self._before else self._highest

    def _watch(self) -> None:
        while self._running:
            self._highest = max(self._highest, _resident())
            time.sleep(0.002)


def _resident() -> float:
    """MiB of resident memory of this process (Linux)."""
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
