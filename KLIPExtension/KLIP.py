"""KLIP: suspicious regions in CT. The module for 3D Slicer: thin, what it does lives in KLIPLib."""

from __future__ import annotations

import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from KLIPLib.command import DEFAULT_RATE, RunSettings, engine_home
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if str(engine_home()) not in sys.path:
    sys.path.append(str(engine_home()))  # a source checkout: klip_engine lies above the module, not beside it


class KLIP(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        from KLIPLib.about import acknowledgement_text, help_text

        parent.title = _("KLIP: suspicious regions in CT")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        parent.dependencies = []
        parent.contributors = ["The KLIP for 3D Slicer authors"]
        parent.helpText = help_text()
        parent.acknowledgementText = acknowledgement_text()
        slicer.app.startupCompleted.connect(_register_sample_data)


def _register_sample_data() -> None:
    from KLIPLib.sample_data import register

    register()


class KLIPWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Loads the panel and tells it about the scene; the panel itself is KLIPLib.panel."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def setup(self) -> None:
        """Called once, when the module is first opened."""
        ScriptedLoadableModuleWidget.setup(self)
        import ctk
        from KLIPLib.panel import Panel

        from klip_engine.detection import NOTICE

        widget = slicer.util.loadUI(self.resourcePath("UI/KLIP.ui"))
        self.layout.addWidget(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = KLIPLogic()
        ui = slicer.util.childWidgetVariables(widget)
        for edit in (ui.priorFolderEdit, ui.resultsFolderEdit):
            edit.filters = ctk.ctkPathLineEdit.Dirs
        self.panel = Panel(ui, self.logic.detector, NOTICE)
        scene = slicer.vtkMRMLScene
        self.addObserver(slicer.mrmlScene, scene.StartCloseEvent, self.onSceneLeaves)
        self.addObserver(slicer.mrmlScene, scene.EndCloseEvent, self.onSceneComes)
        self.addObserver(slicer.mrmlScene, scene.EndImportEvent, self.onSceneComes)
        self.onSceneComes()

    def enter(self) -> None:
        """Called each time the user opens the module."""
        self.onSceneComes()

    def cleanup(self) -> None:
        """Called when the module is reloaded or Slicer ends."""
        self.removeObservers()
        self.panel.close()
        self.logic.cleanup()

    def onSceneLeaves(self, caller: Any = None, event: str = "") -> None:
        """The scene is about to be closed: what runs for it ends first."""
        self.logic.detector.end_all()
        self.panel.set_parameters(None)

    def onSceneComes(self, caller: Any = None, event: str = "") -> None:
        """A scene is there, empty or read from a file: show its parameters and its result."""
        self.panel.set_parameters(self.logic.getParameterNode())


class KLIPLogic(ScriptedLoadableModuleLogic):
    """The module without its panel, for the Python console and other modules (docs/slicer.md)."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        from KLIPLib.detector import Detector, weakly
        from KLIPLib.slicer_host import slicer_host

        self.detector = Detector(slicer_host())
        self._quitting = weakly(self.detector.end_all)
        slicer.app.aboutToQuit.connect(self._quitting)

    def cleanup(self) -> None:
        """End what runs; this logic is used no more."""
        slicer.app.aboutToQuit.disconnect(self._quitting)
        self.detector.close()

    def getParameterNode(self) -> Any:
        """The parameters of the scene, typed."""
        from KLIPLib.parameters import KLIPParameterNode

        return KLIPParameterNode(ScriptedLoadableModuleLogic.getParameterNode(self))

    def process(
        self,
        source: Any,
        falseAlarms: float = DEFAULT_RATE,
        *,
        python: str = "",
        resultsFolder: str | Path = "",
        progress: Callable[[Any], None] | None = None,
        warned: Callable[[str], None] | None = None,
        done: Callable[[Any], None] | None = None,
        failed: Callable[[Exception], None] | None = None,
        **settings: Any,
    ) -> Any:
        """Find suspicious regions in a volume node, or in a projection or volume file.

        falseAlarms: accepted share of healthy slices on which something is marked, from 0 to 1; python: another
        Python environment to run the engine in; resultsFolder: where the result files are kept; settings: prior,
        preset, operator, views, sampler, steps, samples, device, seed, trust_geometry as on the engine's command
        line. progress(p) is called with p.stage, p.done, p.total, p.elapsed_s, p.remaining_s; warned(sentence) with
        what the engine says at the start about projections that do not fit their geometry.

        Without `done` and `failed` it waits, with Slicer responsive, and returns the result: nodes .reconstruction,
        .score, .regions, .segmentation, .findings, .slices, .chart; raises KLIPLib.outcome.EngineError with the
        engine's sentence. With either of them it returns at once a run that has cancel(), wait() and running.
        """
        run = self.detector.detect(
            source,
            RunSettings(false_alarms=falseAlarms, **settings),
            python=python,
            results_folder=resultsFolder,
            progress=progress,
            warned=warned,
            done=done,
            failed=failed,
        )
        return run.wait() if done is None and failed is None else run


class KLIPTest(ScriptedLoadableModuleTest):
    """Tests inside 3D Slicer, with the real engine on the embedded CT (some minutes).

    From a source checkout (<KLIP>), without a window:

        Slicer --no-splash --testing --additional-module-paths <KLIP>/KLIPExtension
               --python-code "import slicer, unittest; slicer.util.selectModule('KLIP'); import KLIP;
               exit(not unittest.TextTestRunner().run(KLIP.tests()).wasSuccessful())"

    From a build of the extension: ctest -R KLIP. In the window, developer mode on: Reload & Test.
    The engine's packages must be installed (open the module and press Apply once). This class was written against
    stand-ins and has not been run in desktop Slicer by the project's own tests.
    """

    def setUp(self) -> None:
        """Start with an empty scene."""
        slicer.mrmlScene.Clear(0)

    def runTest(self) -> None:
        """Run all tests; the button Reload & Test calls this."""
        for name in ("test_result", "test_cancel", "test_rate", "test_bad_file"):
            self.setUp()
            getattr(self, name)()

    def test_result(self) -> None:
        """The embedded CT goes in, nodes on its grid come out, and the layers show them."""
        volume, result = self._processed()
        self.assertEqual(result.regions.GetImageData().GetDimensions(), volume.GetImageData().GetDimensions())
        self.assertGreater(result.findings.GetTable().GetNumberOfRows(), 0)
        segments = result.segmentation.GetSegmentation().GetNumberOfSegments()
        self.assertEqual(segments, result.findings.GetTable().GetNumberOfRows())
        slicer.util.setSliceViewerLayers(label=result.regions)
        view = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
        self.assertEqual(view.GetLabelVolumeID(), result.regions.GetID())

    def test_cancel(self) -> None:
        """A cancelled run leaves the scene as it was, and no process."""
        from KLIPLib.outcome import EngineCancelled

        logic, volume = KLIPLogic(), self._demo_volume()
        before, errors = slicer.mrmlScene.GetNumberOfNodes(), []
        run = logic.process(volume, failed=errors.append)
        self.delayDisplay("Cancelling a run", 3000)
        run.cancel()
        with self.assertRaises(EngineCancelled):
            run.wait()
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)
        self.assertEqual(len(errors), 1)

    def test_rate(self) -> None:
        """Another rate of false alarms is marked in the nodes that are there."""
        from KLIPLib.threshold import set_rate

        _volume, result = self._processed()
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        set_rate(result, 0.5)
        many = result.findings.GetTable().GetNumberOfRows()
        set_rate(result, 0.05)
        self.assertLessEqual(result.findings.GetTable().GetNumberOfRows(), many)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)

    def test_bad_file(self) -> None:
        """A file that is none raises the engine's sentence."""
        from KLIPLib.outcome import EngineError

        with self.assertRaises(EngineError) as raised:
            KLIPLogic().process("/no/such/scan.nrrd")
        self.assertEqual(raised.exception.exit_code, 3)

    def _processed(self) -> tuple[Any, Any]:
        volume = self._demo_volume()
        self.delayDisplay("Running the engine on the embedded CT")
        return volume, KLIPLogic().process(volume, preset="fast")

    def _demo_volume(self) -> Any:
        from klip_engine.demo import demo_ct

        return slicer.util.loadVolume(str(demo_ct()))


def tests() -> unittest.TestSuite:
    """The tests of this module, for a runner of one's own."""
    return unittest.TestSuite(map(KLIPTest, ("test_result", "test_cancel", "test_rate", "test_bad_file")))
