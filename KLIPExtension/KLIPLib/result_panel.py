"""The part of the panel that shows a result: overlay, other rates of false alarms, findings, curve, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from .command import RATES
from .detector import Detector
from .dicom_export import why_no_export
from .display import set_heat_map, set_overlay_opacity, show
from .findings_list import FindingsList
from .jump import jump_to_finding, jump_to_slice
from .marking import FALSE_ALARMS
from .results import find_results, remove_results
from .threshold import set_rate
from .words import findings_words, rate_words


class ResultPanel:
    """Shows the result whose key the parameters hold."""

    def __init__(self, ui: Any, detector: Detector) -> None:
        self.ui, self._detector = ui, detector
        self._parameters: Any = None
        self.result: Any = None
        self._shown: dict[str, Any] = {}
        self._findings = FindingsList(ui.findingsTable, self.jump_to)
        ui.rateSlider.setTracking(False)  # marking again takes a moment: once, when the slider is let go
        ui.rateSlider.sliderMoved.connect(lambda step: ui.rateLabel.setText(rate_words(RATES[step])))
        ui.curveButton.clicked.connect(self.show_curve)
        ui.showButton.clicked.connect(self.show_in_views)
        ui.exportButton.clicked.connect(self.export_dicom)
        ui.reportButton.clicked.connect(self.open_report)
        ui.removeButton.clicked.connect(self.remove)

    @property
    def _report(self) -> Path:
        return self.result.folder / "report.html"

    def set_parameters(self, parameters: Any) -> None:
        """Find the result that the parameters of a scene name."""
        self._parameters = parameters
        self._shown.clear()
        self._find()

    def take(self, result: Any) -> None:
        """Show the result of a run in the panel and in the slice views."""
        self.result = result
        self._shown = {"falseAlarms": _rate_of(result)}
        self._parameters.resultKey = result.key
        self._present()
        self.show_in_views()
        if result.input_node is None:
            self._detector.host.fit_views()  # nothing of projections has been in sight before

    def update(self) -> None:
        """Bring the result in line with the parameters: rate of false alarms, heat map, opacity."""
        parameters = self._parameters
        if parameters is not None:
            self._find()
            self.ui.rateLabel.setText(rate_words(parameters.falseAlarms))
        self.ui.resultsButton.setEnabled(self.result is not None)
        self.ui.reportButton.setEnabled(self.result is not None and self._report.is_file())
        reason = why_no_export(self.result)
        self.ui.exportButton.setEnabled(not reason)
        self.ui.exportButton.setToolTip(reason or _("Write the findings as a DICOM segmentation of this series."))
        if self.result is None or parameters is None:
            self._note("")
            return
        if self._changed("falseAlarms"):
            self._mark_again()
        if self._changed("heatMap"):
            set_heat_map(self.result, parameters.heatMap)
        if self._changed("overlayOpacity"):
            set_overlay_opacity(self.result, parameters.overlayOpacity)

    def jump_to(self, label: int) -> None:
        """Bring all views to a finding."""
        if self.result is not None:
            jump_to_finding(self.result, label)

    def show_in_views(self, *_arguments: Any) -> None:
        """Lay the result over the CT in all slice views."""
        show(
            self.result,
            heat_map=self._parameters.heatMap,
            overlay_opacity=self._parameters.overlayOpacity,
        )
        self._shown |= {name: getattr(self._parameters, name) for name in ("heatMap", "overlayOpacity")}

    def show_curve(self, *_arguments: Any) -> None:
        """Show the slice-score curve in a plot view; a click on a point jumps there."""
        self._detector.host.show_chart(self.result.chart, self._point_clicked)

    def export_dicom(self, *_arguments: Any) -> None:
        """Export the findings to the DICOM database; how it went is said below the buttons."""
        say = self._say_export
        say(_("Writing DICOM…"))
        try:
            self._detector.export_dicom(
                self.result,
                python=self._detector.host.own_python(),
                done=lambda: say(_("The findings are in the DICOM database, in the study of the input.")),
                failed=lambda error: say(str(error)),
            )
        except (RuntimeError, OSError) as error:
            say(str(error))

    def open_report(self, *_arguments: Any) -> None:
        """Open the engine's report."""
        self._detector.host.open_file(self._report)

    def remove(self, *_arguments: Any) -> None:
        """Take the result out of the scene."""
        remove_results(self.result)
        self.result = None
        self._present()
        self._parameters.resultKey = ""  # the panel follows

    def _find(self) -> None:
        """The result of the parameters' key, if it is in the scene: it may be new or gone."""
        key = self._parameters.resultKey if self._parameters is not None else ""
        scene = self._detector.host.scene
        if self.result is not None and self.result.key == key and scene.IsNodePresent(self.result.regions):
            return
        results = find_results(scene) if key else []
        self.result = next((one for one in results if one.key == key), None)
        self._present()
        if self.result is not None:
            self._shown |= {"falseAlarms": _rate_of(self.result), "heatMap": None, "overlayOpacity": None}

    def _present(self) -> None:
        """Fill the panel with the result, or empty it."""
        self._findings.show(self.result)
        self.ui.resultsButton.setProperty("collapsed", self.result is None)
        self._say_export("")
        notices = json.loads(self.result.regions.GetAttribute("KLIP.Notices") or "[]") if self.result else []
        _set_text(self.ui.resultNoticesLabel, "\n".join(notices))
        if self.result is not None:
            self._count()

    def _mark_again(self) -> None:
        try:
            with self._detector.host.busy():
                set_rate(self.result, self._parameters.falseAlarms)
            self._findings.show(self.result)
            self._count()
        except Exception as error:
            self._note(_("Counts for the next run; this result stays as it is: {reason}.").format(reason=error))

    def _count(self) -> None:
        table = self.result.findings.GetTable()
        self.ui.findingsLabel.setText(findings_words(table.GetNumberOfRows()))
        self._note("")

    def _note(self, text: str) -> None:
        _set_text(self.ui.rateNoteLabel, text)

    def _say_export(self, text: str) -> None:
        _set_text(self.ui.exportLabel, text)

    def _changed(self, name: str) -> bool:
        value = getattr(self._parameters, name)
        if self._shown.get(name) == value:
            return False
        self._shown[name] = value
        return True

    def _point_clicked(self, series: str, point: int) -> None:
        if self.result is None:
            return
        if series == self.result.marks.GetID():
            self.jump_to(self.result.findings.GetTable().GetColumnByName("Label").GetValue(point))
        else:
            jump_to_slice(self.result, point)


def _rate_of(result: Any) -> float:
    """The rate of false alarms a result is marked at."""
    return float(result.regions.GetAttribute(FALSE_ALARMS))


def _set_text(label: Any, text: str) -> None:
    """Without a text a label takes no room."""
    label.setText(text)
    label.setVisible(bool(text))
