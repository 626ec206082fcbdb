"""Stand-ins for what slicer-core lacks of the application: the modules and attributes KLIP.py asks for.

The scene, its nodes and its logics are real (tests/extension/mrml.py).
"""

from __future__ import annotations

import os
import sys
import types
import typing
from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtWidgets

from tests.extension.mrml import EXTENSION, Mrml, slicer
from tests.extension.panel import pythonqt


class App(QtCore.QObject):
    """slicer.app."""

    startupCompleted = QtCore.Signal()
    aboutToQuit = QtCore.Signal()

    def __init__(self, temporary: Path) -> None:
        super().__init__()
        self.temporaryPath = str(temporary)
        self.plots = PlotWidget()
        self.fitted = 0
        self._settings = QtCore.QSettings(
            str(temporary.with_name("settings.ini")), QtCore.QSettings.Format.IniFormat
        )

    def processEvents(self) -> None:
        """Let Qt work."""
        QtWidgets.QApplication.processEvents()

    def fit_views(self) -> None:
        """Counts."""
        self.fitted += 1

    def userSettings(self) -> Any:
        """Kept with this computer."""
        return self._settings

    def layoutManager(self) -> Any:
        """Has one plot view."""
        return types.SimpleNamespace(plotWidget=lambda number: self.plots)


class PlotWidget(QtCore.QObject):
    """qMRMLPlotWidget and its view: tells which points were clicked."""

    dataSelected = QtCore.Signal(object, object)

    def plotView(self) -> Any:
        """The view itself."""
        return self

    def mrmlPlotViewNode(self) -> Any:
        """Its node."""
        return types.SimpleNamespace(SetInteractionMode=lambda mode: None)


class Module:
    """ScriptedLoadableModule."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent


class ModuleWidget:
    """ScriptedLoadableModuleWidget."""

    def __init__(self, parent: Any = None) -> None:
        self.parent = parent or pythonqt.QWidget()
        self.layout = QtWidgets.QVBoxLayout(self.parent)
        self.layout.setContentsMargins(6, 6, 6, 6)

    def setup(self) -> None:
        """Nothing of its own."""

    def resourcePath(self, name: str) -> str:
        """Below the module's Resources."""
        return str(EXTENSION / "Resources" / name)


class ModuleLogic:
    """ScriptedLoadableModuleLogic: one parameter node per scene."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        """The module's node, made when there is none."""
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetModuleName(self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        return node


class ModuleTest:
    """ScriptedLoadableModuleTest."""


def parameter_node_wrapper(cls: type) -> type:
    """Typed attributes over the texts and references of a parameter node, with the defaults of the class."""
    kinds = typing.get_type_hints(cls)
    defaults = {name: getattr(cls, name, None) for name in kinds}

    def start(self: Any, node: Any) -> None:
        self.parameterNode = node
        for name, default in defaults.items():
            if default is not None and not node.HasParameter(name):
                node.SetParameter(name, str(default))

    def parameter(name: str, kind: type) -> property:
        if kind in (str, int, float, bool):
            read = {bool: lambda text: text == "True"}.get(kind, kind)
            return property(
                lambda self: read(self.parameterNode.GetParameter(name)),
                lambda self, value: self.parameterNode.SetParameter(name, str(kind(value))),
            )
        return property(
            lambda self: self.parameterNode.GetNodeReference(name),
            lambda self, node: self.parameterNode.SetNodeReferenceID(name, node.GetID() if node else None),
        )

    for name, kind in kinds.items():
        setattr(cls, name, parameter(name, kind))
    cls.__init__ = start  # type: ignore[misc]
    cls.AddObserver = lambda self, event, slot: self.parameterNode.AddObserver(event, slot)  # type: ignore[attr-defined]
    cls.RemoveObserver = lambda self, tag: self.parameterNode.RemoveObserver(tag)  # type: ignore[attr-defined]
    return cls


def install(patch: Any, mrml: Mrml, temporary: Path) -> App:
    """Put the stand-ins where KLIP.py looks for them; `patch`: pytest's monkeypatch, or one with its `setattr`."""
    app = App(temporary)
    modules = {
        "qt": pythonqt.qt,
        "ctk": pythonqt.ctk,
        "slicer.i18n": _module("slicer.i18n", tr=lambda text: text, translate=lambda context, text: text),
        "slicer.ScriptedLoadableModule": _module(
            "slicer.ScriptedLoadableModule",
            ScriptedLoadableModule=Module,
            ScriptedLoadableModuleWidget=ModuleWidget,
            ScriptedLoadableModuleLogic=ModuleLogic,
            ScriptedLoadableModuleTest=ModuleTest,
        ),
        "slicer.parameterNodeWrapper": _module(
            "slicer.parameterNodeWrapper", parameterNodeWrapper=parameter_node_wrapper
        ),
    }
    for name, module in modules.items():
        patch.setitem(sys.modules, name, module)
    patch.setattr(slicer.util, "loadUI", pythonqt.load_ui)
    patch.setattr(slicer.util, "childWidgetVariables", pythonqt.by_name)
    patch.setattr(slicer.util, "startupEnvironment", lambda: dict(os.environ))
    patch.setattr(slicer.util, "resetSliceViews", app.fit_views)
    patch.setattr(slicer, "mrmlScene", mrml.scene, raising=False)
    patch.setattr(slicer, "app", app, raising=False)
    plots = types.SimpleNamespace(logic=lambda: types.SimpleNamespace(ShowChartInLayout=lambda chart: None))
    patch.setattr(slicer, "modules", types.SimpleNamespace(plots=plots), raising=False)
    return app


def _module(name: str, **content: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(content)
    return module
