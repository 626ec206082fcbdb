"""Keeps widgets and parameters equal, in both directions.

Reads are properties, as PythonQt has them (`widget.value`); writes are setters, which every Qt for Python has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import vtk

from .choices import Choices


@dataclass(frozen=True)
class Binding:
    """One parameter and one widget: how the widget is read and written, and the signal of its change."""

    parameter: str
    read: Callable[[], Any]
    write: Callable[[Any], None]
    changed: Any


def check_box(parameter: str, widget: Any) -> Binding:
    """A check box or radio button for a bool."""
    return Binding(parameter, lambda: widget.checked, widget.setChecked, widget.toggled)


def number(parameter: str, widget: Any) -> Binding:
    """A spin box or slider for its number."""
    return Binding(parameter, lambda: widget.value, widget.setValue, widget.valueChanged)


def path(parameter: str, widget: Any) -> Binding:
    """A ctkPathLineEdit for a text; empty stays empty."""
    return Binding(
        parameter, lambda: str(widget.currentPath).strip(), widget.setCurrentPath, widget.currentPathChanged
    )


def node(parameter: str, widget: Any) -> Binding:
    """A node selector."""
    return Binding(parameter, widget.currentNode, widget.setCurrentNode, widget.currentNodeChanged)


def choice(parameter: str, widget: Any, choices: Choices) -> Binding:
    """A combo box, filled here, for the value behind the chosen words; a value it does not offer is added."""
    values = []

    def add(words: str, value: str) -> int:
        widget.addItem(words)
        values.append(value)
        return len(values) - 1

    for words, value in choices:
        add(words, value)

    def write(value: str) -> None:
        widget.setCurrentIndex(values.index(value) if value in values else add(value, value))

    return Binding(parameter, lambda: values[widget.currentIndex], write, widget.currentIndexChanged)


def step(parameter: str, widget: Any, steps: tuple[float, ...]) -> Binding:
    """A slider over a few values; a value between them is shown at the nearest, and kept as it is."""
    return Binding(
        parameter,
        lambda: steps[widget.value],
        lambda value: widget.setValue(min(range(len(steps)), key=lambda n: abs(steps[n] - value))),
        widget.valueChanged,
    )


class Bound:
    """Bindings that are alive: `close` lets go of the parameter node."""

    def __init__(self, parameters: Any, bindings: list[Binding], changed: Callable[[], None]) -> None:
        """Write all parameters into their widgets, then follow changes on either side; `changed` after each."""
        self._parameters, self._bindings, self._changed = parameters, bindings, changed
        self._writing = False
        self._connections = [(one.changed, self._reader(one)) for one in bindings]
        self._write_widgets()
        for signal, slot in self._connections:
            signal.connect(slot)
        self._observation = parameters.AddObserver(vtk.vtkCommand.ModifiedEvent, self._node_changed)

    def close(self) -> None:
        """Follow no more changes."""
        for signal, slot in self._connections:
            signal.disconnect(slot)
        self._connections.clear()
        self._parameters.RemoveObserver(self._observation)

    def _reader(self, binding: Binding) -> Callable[..., None]:
        def read(*_: Any) -> None:
            if self._writing:
                return
            value = binding.read()
            if value != getattr(self._parameters, binding.parameter):
                setattr(self._parameters, binding.parameter, value)  # the node's event does the rest

        return read

    def _node_changed(self, caller: Any = None, event: str = "") -> None:
        if not self._writing:
            self._write_widgets()
            self._changed()

    def _write_widgets(self) -> None:
        self._writing = True
        try:
            for one in self._bindings:
                value = getattr(self._parameters, one.parameter)
                if value != one.read():
                    one.write(value)
        finally:
            self._writing = False
