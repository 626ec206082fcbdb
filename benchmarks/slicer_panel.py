"""How quick the module's panel is: from Apply to the first progress, and under 100 progress messages a second.

    QT_QPA_PLATFORM=offscreen python -m benchmarks.slicer_panel [--repeats N] [--json FILE]

The panel is the real one on a real MRML scene; its widgets are PySide6 in place of Slicer's (panel_pictures.py).
`apply_s`: from the click on Apply until the bar shows the first progress of the real engine on the embedded CT;
`engine_s`: the same command alone, from its start to its first progress line; the bar is 3 s for the difference,
which is what handing over the volume and looking at the output cost. `longest_pause_ms`: the longest time between
two turns of the event loop while a program prints 100 messages a second and the panel shows them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
import pytest
import SimpleITK as sitk
from PySide6 import QtWidgets

from klip_engine.demo import demo_ct
from klip_engine.volume import Geometry
from tests.extension.mrml import Mrml
from tests.extension.panel import slicer_app
from tests.extension.panel.conftest import FAKE


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    QtWidgets.QApplication([])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        mrml = Mrml()
        slicer_app.install(patch, mrml, Path(folder))
        import KLIP
        from KLIPLib import slicer_host

        patch.setattr(slicer_host, "_ensure_dependencies", lambda: None)
        python = Path(folder) / "PythonSlicer"
        patch.setattr(shutil, "which", lambda name: str(python))
        widget = KLIP.KLIPWidget()
        widget.setup()
        widget.parent.show()
        image = sitk.ReadImage(str(demo_ct()))
        to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ Geometry.of(image).matrix
        widget.panel.ui.inputSelector.setCurrentNode(mrml.add_volume(sitk.GetArrayFromImage(image), to_ras))
        become(python, f'exec "{sys.executable}" "$@"')
        applied = [from_apply(widget) for _ in range(options.repeats)]
        alone = [engine_alone(Path(folder)) for _ in range(options.repeats)]
        become(python, f'exec "{sys.executable}" "{FAKE}" steady none "$@"')
        figures = {
            "apply_s": applied,
            "engine_s": alone,
            "difference_s": round(statistics.median(applied) - statistics.median(alone), 2),
            **under_messages(widget),
        }
        widget.cleanup()
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def become(python: Path, line: str) -> None:
    python.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    python.chmod(0o755)


def from_apply(widget) -> float:
    """Seconds from the click to the first progress on the bar; the run is cancelled then."""
    bar = widget.panel.ui.progressBar
    began = time.perf_counter()
    widget.panel.ui.applyButton.click()
    while bar.maximum == 0:
        QtWidgets.QApplication.processEvents()
        time.sleep(0.005)
    spent = time.perf_counter() - began
    widget.panel.runs.run.cancel()
    while widget.panel.runs.running:
        QtWidgets.QApplication.processEvents()
        time.sleep(0.01)
    return round(spent, 2)


def engine_alone(folder: Path) -> float:
    """Seconds from the start of the same command to its first progress line."""
    command = [sys.executable, "-m", "klip_engine", "detect", str(demo_ct()), "-o", str(folder / "alone")]
    began = time.perf_counter()
    with subprocess.Popen([*command, "--progress", "json"], stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        for line in engine.stdout:
            if '"progress"' in line:
                break
        spent = time.perf_counter() - began
        engine.kill()
    return round(spent, 2)


def under_messages(widget) -> dict[str, float]:
    """What 200 messages in 2 s do to the event loop."""
    widget.panel.ui.applyButton.click()
    longest, last, spent = 0.0, time.perf_counter(), time.process_time()
    began = last
    while widget.panel.runs.running:
        QtWidgets.QApplication.processEvents()
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
        time.sleep(0.001)
    share = (time.process_time() - spent) / (time.perf_counter() - began)
    return {"longest_pause_ms": round(1000 * longest, 1), "processor_share": round(share, 3)}


if __name__ == "__main__":
    main()
