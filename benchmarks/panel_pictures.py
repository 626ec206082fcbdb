"""Pictures for the documentation: docs/images/panel-{idle,running,results}.png and slice-view.png.

The panel is the real one (KLIP.ui, KLIPLib) on a real MRML scene, with the embedded CT and the real engine; its
widgets are PySide6 in place of Slicer's, so it is a simulated panel: desktop Slicer looks somewhat different. The
slice view is what Slicer's slice logic composites of the layers, without the frame, cross-hair and outlines that
the window draws around and above it.

    QT_QPA_PLATFORM=offscreen python -m benchmarks.panel_pictures
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from PySide6 import QtGui, QtTest, QtWidgets

from klip_engine.demo import demo_ct, demo_truth
from klip_engine.volume import Geometry
from tests.extension.mrml import Mrml, array_of, composite_of, ras_of
from tests.extension.panel import slicer_app

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDTH = 440


def main() -> None:
    application = QtWidgets.QApplication([])
    application.setStyle("Fusion")
    application.setFont(QtGui.QFont("DejaVu Sans", 9))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        mrml = Mrml()
        slicer_app.install(patch, mrml, Path(folder))
        import KLIP
        from KLIPLib import slicer_host
        from KLIPLib.display import show

        patch.setattr(slicer_host, "_ensure_dependencies", lambda: None)
        patch.setattr(shutil, "which", lambda name: sys.executable)
        widget = KLIP.KLIPWidget()
        widget.setup()
        view = mrml.add_slice_view("Red", "Axial")
        IMAGES.mkdir(parents=True, exist_ok=True)
        image = sitk.ReadImage(str(demo_ct()))
        to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ Geometry.of(image).matrix
        widget.panel.ui.inputSelector.setCurrentNode(
            mrml.add_volume(sitk.GetArrayFromImage(image), to_ras, "Demo CT")
        )
        take(widget, "panel-idle")
        widget.panel.ui.applyButton.click()
        run = widget.panel.runs.run
        while run.running and widget.panel.ui.progressBar.value < 450:
            QtTest.QTest.qWait(50)
        QtTest.QTest.qWait(600)
        widget.panel.ui.logButton.setProperty("collapsed", False)
        take(widget, "panel-running")
        widget.panel.ui.logButton.setProperty("collapsed", True)
        while run.running:
            QtTest.QTest.qWait(50)
        if run.error:
            raise run.error
        take(widget, "panel-results")
        take_slice(view, widget.panel.results.result, show)
        widget.cleanup()


def take(widget, name: str) -> None:
    """The panel as it is, at twice the pixels."""
    window = widget.parent
    window.show()
    window.resize(WIDTH, 100)
    QtTest.QTest.qWait(100)
    window.resize(WIDTH, max(window.minimumSizeHint().height(), window.layout().totalHeightForWidth(WIDTH)))
    QtTest.QTest.qWait(100)
    picture = QtGui.QPixmap(2 * window.size())
    picture.setDevicePixelRatio(2)
    picture.fill(window.palette().window().color())
    window.render(picture)
    picture.save(str(IMAGES / f"{name}.png"))


def take_slice(view, result, show) -> None:
    """The axial slice of the finding nearest to the inserted nodule: the CT alone, with the marked regions, with
    these and the heat map."""
    x, y, z = demo_truth()["centre_lps_mm"]
    regions, labels = result.regions, array_of(result.regions)
    places = {
        label: ras_of(regions, np.argwhere(labels == label)[:, ::-1]).mean(axis=0)
        for label in range(1, labels.max() + 1)
    }
    nearest = min(places, key=lambda label: np.linalg.norm(places[label] - (-x, -y, z)))
    bounds = [0.0] * 6
    regions.GetRASBounds(bounds)
    middle = sum(bounds[:2]) / 2, sum(bounds[2:4]) / 2
    views = []
    for opacity, heat_map in ((0.0, False), (0.6, False), (0.6, True)):
        show(result, heat_map=heat_map, overlay_opacity=opacity)
        view.GetSliceNode().JumpSliceByCentering(*middle, places[nearest][2])
        views.append(composite_of(view, (480, 360), (370.0, 277.5))[..., :3].copy())
    Image.fromarray(np.concatenate(views, axis=1)).save(IMAGES / "slice-view.png")


if __name__ == "__main__":
    main()
