"""The engine's command line as the module calls it: the only place that knows its options and its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_AT_EOF = "KLIP_STOP_AT_EOF"
"""Tells the engine to end when its standard input does: a Slicer that crashed leaves no engine behind."""

RATES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Steps of the slider for the accepted rate of false alarms."""
DEFAULT_RATE = 0.2


@dataclass(frozen=True)
class RunSettings:
    """What a run is told (docs/cli.md); None, or an empty text, leaves it to the engine or the preset.

    false_alarms: accepted share of healthy slices on which something is marked; prior: a bundle's folder or a
    built-in name; trust_geometry: take projections although they contradict their geometry; the others as the
    options of `klip-engine detect`.
    """

    false_alarms: float = DEFAULT_RATE
    prior: str = ""
    preset: str = ""
    operator: str = ""
    views: int | None = None
    sampler: str = ""
    steps: int | None = None
    samples: int | None = None
    device: str = ""
    seed: int | None = None
    trust_geometry: bool = False


def detect_command(python: Path, source: Path, out: Path, settings: RunSettings) -> list[str]:
    """`klip-engine detect` on a file or folder, speaking JSON lines."""
    command = _engine(python, "detect", source, "-o", out)
    for name, value in vars(settings).items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            command += [option] if value else []
        elif value not in (None, ""):
            command += [option, str(value)]
    return [*command, "--progress", "json"]


def export_command(python: Path, results: Path, sources: Path, out: Path, false_alarms: float) -> list[str]:
    """`klip-engine export`: the findings at a rate of false alarms as DICOM SEG.

    sources: a text file that lists the files of the series, a path a line.
    """
    command = _engine(python, "export", results, "-o", out, "--source", sources, "--objects", "seg")
    return [*command, "--false-alarms", str(false_alarms), "--progress", "json"]


def engine_home(library: Path | None = None) -> Path:
    """The folder in which the package klip_engine lies: beside the module, or above it in a source checkout.

    Raises FileNotFoundError when the module was copied without it.
    """
    module_folder = (library or Path(__file__).resolve().parent).parent
    for folder in (module_folder, module_folder.parent):
        if (folder / "klip_engine" / "__init__.py").is_file():
            return folder
    raise FileNotFoundError(f"the package klip_engine is not beside {module_folder}; install the extension again")


def engine_environment(base: Mapping[str, str], home: Path) -> dict[str, str]:
    """The environment of the engine: `base`, with klip_engine importable, UTF-8, unbuffered, bound to our life."""
    paths = [str(home), *filter(None, [base.get("PYTHONPATH")])]
    return dict(base) | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "KLIP_DEBUG": "1",  # an unexpected error leaves its traceback in the log
        STOP_AT_EOF: "1",
    }


def interpreter_in(place: str | Path) -> Path:
    """The Python interpreter a user points to: the program itself, or the folder of a (virtual) environment.

    Raises FileNotFoundError with the cure when there is none.
    """
    path = Path(place).expanduser()
    if path.is_file():
        return path
    for inner in ("bin/python3", "bin/python", "Scripts/python.exe", "python.exe"):
        if (path / inner).is_file():
            return path / inner
    raise FileNotFoundError(
        f"there is no Python in {path}; choose a python program or the folder of a Python environment"
    )


def shown(command: Sequence[str]) -> str:
    """A command for the log; to be read and, with its environment, typed."""
    return " ".join(f'"{word}"' if " " in word or not word else word for word in command)


def _engine(python: Path, *words: str | Path) -> list[str]:
    return [str(python), "-m", "klip_engine", *map(str, words)]
