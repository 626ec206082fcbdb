"""PySide6 in the manners of PythonQt: Qt properties are read as attributes (`box.value`), as Slicer's Qt does.

A read written as a call (`box.value()`) fails on these classes as it would in Slicer.
"""

from __future__ import annotations

import types
from typing import Any

import pytest

pytest.importorskip("PySide6", reason="needs PySide6: pip install 'klip-engine[extension-test]'")
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

_GETTERS = {"checked": "isChecked", "enabled": "isEnabled", "visible": "isVisible"}
_EVERYWHERE = ("enabled", "visible", "toolTip")


def in_pythonqt_manner(base: type, *names: str) -> type:
    """A subclass whose Qt properties are attributes, as PythonQt has them."""

    def reader(name: str) -> property:
        return property(getattr(base, _GETTERS.get(name, name)))

    return type(base.__name__, (base,), {name: reader(name) for name in (*_EVERYWHERE, *names)})


QWidget = in_pythonqt_manner(QtWidgets.QWidget)
QLabel = in_pythonqt_manner(QtWidgets.QLabel, "text")
QPushButton = in_pythonqt_manner(QtWidgets.QPushButton, "text", "checked")
QRadioButton = in_pythonqt_manner(QtWidgets.QRadioButton, "text", "checked")
QCheckBox = in_pythonqt_manner(QtWidgets.QCheckBox, "text", "checked")
QSlider = in_pythonqt_manner(QtWidgets.QSlider, "value", "minimum", "maximum")
QSpinBox = in_pythonqt_manner(QtWidgets.QSpinBox, "value", "minimum", "maximum")
QComboBox = in_pythonqt_manner(QtWidgets.QComboBox, "currentIndex", "currentText", "count")
QProgressBar = in_pythonqt_manner(QtWidgets.QProgressBar, "value", "minimum", "maximum")
QPlainTextEdit = in_pythonqt_manner(QtWidgets.QPlainTextEdit)
QTableWidget = in_pythonqt_manner(QtWidgets.QTableWidget, "rowCount", "columnCount")


class CollapsibleButton(QWidget):
    """ctkCollapsibleButton: a title, and below it its content, which folds away."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._title, self._collapsed = "", False

    def childEvent(self, event: Any) -> None:
        """Children that come after the button was folded are hidden too."""
        super().childEvent(event)
        self._fold()

    def event(self, event: Any) -> bool:
        """The designer's properties arrive as dynamic ones."""
        if event.type() == QtCore.QEvent.Type.DynamicPropertyChange:
            name = bytes(event.propertyName().data()).decode()
            if name == "text":
                self._title = self.property("text")
            elif name == "collapsed":
                self._collapsed = bool(self.property("collapsed"))
            self._fold()
        return super().event(event)

    @property
    def collapsed(self) -> bool:
        """Whether its content is folded away."""
        return self._collapsed

    def mousePressEvent(self, event: Any) -> None:
        """A click on the title folds and unfolds."""
        if event.position().y() < _TITLE:
            self.setProperty("collapsed", not self._collapsed)

    def paintEvent(self, event: Any) -> None:
        """The title with its arrow, and a frame around the content."""
        painter = QtGui.QPainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width(), _TITLE - 2)
        option.text = f"{'▸' if self._collapsed else '▾'}  {self._title}"
        option.state |= QtWidgets.QStyle.StateFlag.State_Raised
        self.style().drawControl(QtWidgets.QStyle.ControlElement.CE_PushButton, option, painter, self)

    def _fold(self) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(not self._collapsed)
        self.setContentsMargins(0, _TITLE - 4, 0, 0)
        fixed = _TITLE if self._collapsed else 16777215
        self.setMaximumHeight(fixed)
        self.updateGeometry()
        self.update()


_TITLE = 28


class PathLineEdit(QWidget):
    """ctkPathLineEdit: a path and a button that browses."""

    Dirs, Files = 1, 2
    currentPathChanged = QtCore.Signal(str)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.filters = 0
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self.edit, browse = QtWidgets.QLineEdit(), QtWidgets.QToolButton()
        browse.setText("…")
        row.addWidget(self.edit)
        row.addWidget(browse)
        self.edit.textChanged.connect(self.currentPathChanged)

    @property
    def currentPath(self) -> str:
        """What is typed or chosen."""
        return self.edit.text()

    def setCurrentPath(self, path: str) -> None:
        """Show a path."""
        self.edit.setText(path)


class SliderWidget(QWidget):
    """ctkSliderWidget: a slider of real numbers and a box with the number."""

    valueChanged = QtCore.Signal(float)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self.slider, self.box = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal), QtWidgets.QDoubleSpinBox()
        self.slider.setRange(0, 100)
        self.box.setRange(0, 1)
        self.box.setSingleStep(0.05)
        row.addWidget(self.slider)
        row.addWidget(self.box)
        self.slider.valueChanged.connect(lambda step: self.box.setValue(step / 100))
        self.box.valueChanged.connect(lambda value: self.slider.setValue(round(100 * value)))
        self.box.valueChanged.connect(self.valueChanged)

    @property
    def value(self) -> float:
        """The number."""
        return self.box.value()

    def setValue(self, value: float) -> None:
        """Show a number."""
        self.box.setValue(value)


class NodeComboBox(QComboBox):
    """qMRMLNodeComboBox: the nodes of a class in a scene, and none."""

    currentNodeChanged = QtCore.Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._nodes: list[Any] = [None]
        self._scene: Any = None
        self._observations: list[int] = []
        self.addItem("None")
        self.currentIndexChanged.connect(lambda index: self.currentNodeChanged.emit(self.currentNode()))

    def setMRMLScene(self, scene: Any) -> None:
        """Offer the scalar volumes of a scene, now and later; None lets go of it."""
        for tag in self._observations:
            self._scene.RemoveObserver(tag)
        self._observations.clear()
        self._scene = scene
        if scene is None:
            return
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent):
            self._observations.append(scene.AddObserver(event, lambda *_: self._offer()))
        self._offer()

    def currentNode(self) -> Any:
        """The chosen node."""
        return self._nodes[max(QtWidgets.QComboBox.currentIndex(self), 0)]

    def setCurrentNode(self, node: Any) -> None:
        """Choose a node."""
        self.setCurrentIndex(self._nodes.index(node) if node in self._nodes else 0)

    def _offer(self) -> None:
        chosen, count = self.currentNode(), self._scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        found = [self._scene.GetNthNodeByClass(index, "vtkMRMLScalarVolumeNode") for index in range(count)]
        self._nodes = [None, *found]
        self.blockSignals(True)
        self.clear()
        self.addItems(["None", *(node.GetName() for node in found)])
        self.setCurrentNode(chosen)
        self.blockSignals(False)
        if self.currentNode() is not chosen:
            self.currentNodeChanged.emit(self.currentNode())


class MRMLWidget(QWidget):
    """qMRMLWidget: tells the selectors in it of the scene."""

    def setMRMLScene(self, scene: Any) -> None:
        """As the connection in the .ui file does."""
        for selector in self.findChildren(NodeComboBox):
            selector.setMRMLScene(scene)


_CLASSES = {
    "ctkCollapsibleButton": CollapsibleButton,
    "ctkPathLineEdit": PathLineEdit,
    "ctkSliderWidget": SliderWidget,
    "qMRMLNodeComboBox": NodeComboBox,
    "qMRMLWidget": MRMLWidget,
} | {cls.__name__: cls for cls in (QWidget, QLabel, QPushButton, QRadioButton, QCheckBox, QSlider, QSpinBox,
                                   QComboBox, QProgressBar, QPlainTextEdit, QTableWidget)}  # fmt: skip


class UiLoader(QtUiTools.QUiLoader):
    """Loads a .ui file of Slicer with the classes above."""

    def createWidget(self, name: str, parent: Any = None, object_name: str = "") -> Any:
        """A widget of a class by its name in the file."""
        if name not in _CLASSES:
            return super().createWidget(name, parent, object_name)
        widget = _CLASSES[name](parent)
        widget.setObjectName(object_name)
        return widget


def load_ui(path: str) -> Any:
    """What `slicer.util.loadUI` returns."""
    widget = UiLoader().load(path)
    if widget is None:
        raise RuntimeError(f"{path} is no .ui file")
    return widget


def by_name(widget: Any) -> Any:
    """What `slicer.util.childWidgetVariables` returns."""
    named = {child.objectName(): child for child in widget.findChildren(QtWidgets.QWidget) if child.objectName()}
    return types.SimpleNamespace(**named)


def _qt_name(name: str) -> Any:
    for source in (QtCore, QtGui, QtWidgets):
        if hasattr(source, name):
            return getattr(source, name)
    raise AttributeError(f"module 'qt' has no attribute '{name}'")


qt = types.ModuleType("qt")
qt.__getattr__ = _qt_name  # type: ignore[method-assign]
ctk = types.ModuleType("ctk")
ctk.ctkPathLineEdit = PathLineEdit  # type: ignore[attr-defined]
