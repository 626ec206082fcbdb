"""The panel: what the user sees and does, on top of a parameter node and a `Detector`.

It holds one run and shows one result at a time; both can be driven without it (`KLIPLogic`).
"""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from . import binding, choices
from .command import RATES
from .detector import Detector
from .parameters import run_settings
from .readiness import why_not
from .result_panel import ResultPanel
from .run_panel import RunPanel


class Panel:
    """Wires the widgets of KLIP.ui (`ui`: by object name) to the parameters and to the detector."""

    def __init__(self, ui: Any, detector: Detector, notice: str) -> None:
        self.ui, self.detector = ui, detector
        self._parameters: Any = None
        self._bound: binding.Bound | None = None
        ui.noticeLabel.setText(notice)
        ui.rateSlider.setRange(0, len(RATES) - 1)
        self._bindings = self._all_bindings()
        self.results = ResultPanel(ui, detector)
        self.runs = RunPanel(ui, detector, self._ended)
        ui.applyButton.clicked.connect(self.apply)
        ui.cancelButton.clicked.connect(self.runs.cancel)
        ui.pythonEdit.setCurrentPath(detector.host.own_python())
        ui.pythonEdit.currentPathChanged.connect(self._python_chosen)
        self.update()

    def set_parameters(self, parameters: Any) -> None:
        """Show the parameters of a scene, and the result they name; None while there is no scene."""
        if self._bound is not None:
            self._bound.close()
            self._bound = None
        self._parameters = parameters
        self.results.set_parameters(parameters)
        if parameters is not None:
            self._bound = binding.Bound(parameters, self._bindings, self.update)
        self.update()

    def apply(self, *_: Any) -> None:
        """Start a run with the parameters as they are."""
        parameters = self._parameters
        if parameters is None or self.runs.running or self._why_not():
            return
        source = parameters.inputFile if parameters.useInputFile else parameters.inputVolume
        self.runs.start(
            source,
            run_settings(parameters),
            python=self.detector.host.own_python(),
            results_folder=parameters.resultsFolder,
        )
        self.update()

    def close(self) -> None:
        """Stop what runs and let go of the scene."""
        self.runs.end_now()
        self.set_parameters(None)

    def update(self) -> None:
        """Bring everything that depends on the parameters up to date."""
        ui, parameters = self.ui, self._parameters
        running = self.runs.running
        reason = self._why_not()
        if running:
            reason = _("A run is under way.")
        ui.applyButton.setEnabled(not reason)
        ui.applyButton.setToolTip(reason or _("Look for suspicious regions in this input."))
        ui.reasonLabel.setText("" if running else reason)
        ui.reasonLabel.setVisible(bool(reason) and not running)
        ui.cancelButton.setEnabled(running)
        for group in (ui.inputButton, ui.advancedButton):
            group.setEnabled(parameters is not None and not running)
        if parameters is not None:
            ui.inputSelector.setEnabled(not parameters.useInputFile)
            ui.inputFileEdit.setEnabled(parameters.useInputFile)
            ui.priorFolderEdit.setEnabled(parameters.useOwnPrior)
            ui.volumeRadio.setChecked(not parameters.useInputFile)
            ui.defaultPriorRadio.setChecked(not parameters.useOwnPrior)
        self.results.update()

    def _why_not(self) -> str:
        if self._parameters is None:
            return _("There is no scene.")
        return why_not(self._parameters, self.detector.host.own_python())

    def _python_chosen(self, *_arguments: Any) -> None:
        self.detector.host.set_own_python(str(self.ui.pythonEdit.currentPath).strip())
        self.update()

    def _ended(self, result: Any) -> None:
        """A run is over; result: None when it was cancelled or failed."""
        if result is not None and self._parameters is not None:
            self.results.take(result)
        self.update()

    def _all_bindings(self) -> list[binding.Binding]:
        ui = self.ui
        return [
            binding.node("inputVolume", ui.inputSelector),
            binding.check_box("useInputFile", ui.fileRadio),
            binding.path("inputFile", ui.inputFileEdit),
            binding.check_box("useOwnPrior", ui.ownPriorRadio),
            binding.path("priorFolder", ui.priorFolderEdit),
            binding.step("falseAlarms", ui.rateSlider, RATES),
            binding.choice("preset", ui.presetBox, choices.presets()),
            binding.choice("operator", ui.operatorBox, choices.operators()),
            binding.number("views", ui.viewsBox),
            binding.choice("sampler", ui.samplerBox, choices.samplers()),
            binding.number("steps", ui.stepsBox),
            binding.number("samples", ui.samplesBox),
            binding.choice("device", ui.deviceBox, choices.devices()),
            binding.number("seed", ui.seedBox),
            binding.check_box("trustGeometry", ui.trustGeometryBox),
            binding.path("resultsFolder", ui.resultsFolderEdit),
            binding.check_box("heatMap", ui.heatMapBox),
            binding.number("overlayOpacity", ui.opacitySlider),
        ]
