"""What the module needs of the application around it, in one place: Slicer itself, or what tests put there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .command import engine_environment, engine_home, interpreter_in
from .runner import MakeTicker


@dataclass(frozen=True)
class Engine:
    """A Python that runs the engine, and the environment variables it gets."""

    python: Path
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Host:
    """The application.

    scene: its MRML scene; python: the interpreter beside it (PythonSlicer), with `environment`; outer_environment:
    that of other programs, without what only Slicer's own Python needs; temporary_folder: where runs keep their
    files; make_ticker: timers of its event loop; process_events: keeps it responsive while a caller waits;
    ensure_dependencies: asks the user and installs what the engine lacks in `python`, raises RuntimeError with a
    sentence when it stays lacking; show_chart: (chart node, callback(series node ID, point number)) shows a plot;
    open_file: in the program the user has for it; dicom_files: paths of the files of SOP Instance UIDs in the DICOM
    database; add_dicom: takes the files of a folder into it; busy: shows within the block that a moment is taken;
    fit_views: brings all that the slice views show into sight.

    own_python and set_own_python: the Python environment this user runs the engine in. It is kept with the computer
    and never in a scene: a scene file of someone else must not say which program is run.
    """

    scene: Any
    python: Path
    environment: Mapping[str, str]
    outer_environment: Mapping[str, str]
    temporary_folder: Path
    make_ticker: MakeTicker
    process_events: Callable[[], None]
    ensure_dependencies: Callable[[], None]
    show_chart: Callable[[Any, Callable[[str, int], None]], None]
    open_file: Callable[[Path], None]
    dicom_files: Callable[[list[str]], list[str]]
    add_dicom: Callable[[Path], None]
    busy: Callable[[], AbstractContextManager[Any]]
    fit_views: Callable[[], None]
    own_python: Callable[[], str]
    set_own_python: Callable[[str], None]

    def engine(self, own_python: str = "") -> Engine:
        """The engine in Slicer's Python, or in one of the user's own (a program or a folder).

        Raises FileNotFoundError when either is not there, RuntimeError when packages are lacking.
        """
        home = engine_home()
        if own_python:
            return Engine(interpreter_in(own_python), engine_environment(self.outer_environment, home))
        self.ensure_dependencies()
        return Engine(self.python, engine_environment(self.environment, home))
