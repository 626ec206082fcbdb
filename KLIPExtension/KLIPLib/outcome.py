"""How a run ended, and the sentence that says so: the engine's own wherever it left one."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from slicer.i18n import tr as _


class End(Enum):
    """How a run of the engine can end."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Outcome:
    """The end of a run: a sentence for people, the exit code (None: never started), the engine's last event."""

    end: End
    message: str = ""
    exit_code: int | None = None
    event: dict[str, Any] = field(default_factory=dict)


class EngineError(RuntimeError):
    """A run without a result; the text is the engine's sentence, `log` everything it printed."""

    def __init__(self, message: str, exit_code: int | None = None, log: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.log = log


class EngineCancelled(EngineError):
    """The run was cancelled; the scene is as it was."""


def cancelled_sentence() -> str:
    """What is said of a cancelled run."""
    return _("The run was cancelled; the scene is as it was.")


def failure_sentence(code: int, event: dict[str, Any] | None, errors: Sequence[str]) -> str:
    """Why a run failed.

    code: its exit code; event: its error event, if it came to that; errors: the lines of its standard error.
    """
    missing = _missing_package(errors)
    if missing:
        return _(
            "The engine's Python lacks the package '{name}'; install it there, or choose another Python "
            "environment under Advanced."
        ).format(name=missing)
    if event is not None and isinstance(event.get("message"), str) and event["message"]:
        return _sentence(event["message"])
    said = [line.partition("klip-engine: ")[2] for line in errors if line.startswith("klip-engine: ")]
    if said:
        return _sentence(said[-1])
    if _killed(code):
        return _(
            "The engine was killed ({signal}). Out of memory? Close other programs, or take fewer samples or "
            "another device under Advanced."
        ).format(signal=_signal_name(code))
    if code == 2 and (refused := _refusal(errors)):
        return _sentence(refused)
    return _by_code(code)


def _by_code(code: int) -> str:
    """What an exit code of the engine means (docs/cli.md)."""
    known = {
        0: _("The engine ended without a word about its results; the log may say why."),
        1: _("The engine met an error it did not expect; the log says where."),
        2: _("The engine does not accept these settings; the log says which."),
        3: _("The engine cannot read the input; the log says why."),
        4: _("The run was stopped from outside; nothing was written."),
        5: _(
            "Memory or the compute device gave out; close other programs or choose another device under Advanced."
        ),
    }
    unknown = _("The engine ended with the unknown exit code {code}; the log may say why.")
    return known.get(code) or unknown.format(code=code)


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _missing_package(errors: Sequence[str]) -> str | None:
    """The package whose import failed, where that is the last thing that went wrong."""
    for line in reversed(errors[-20:]):
        match = re.match(r"(?:ModuleNotFoundError: |.*: )?No module named '?([\w.]+)'?", line)
        if match:
            return match[1].partition(".")[0]
    return None


def _refusal(errors: Sequence[str]) -> str:
    """What the command line's parser says about an option: the text in the frame it draws around it."""
    framed = [line.strip().strip("│|").strip() for line in errors if line.strip().startswith(("│", "|"))]
    if framed:
        return " ".join(framed)
    plain = [line.partition("Error: ")[2] for line in errors if line.startswith("Error: ")]
    return plain[-1] if plain else ""


def _killed(code: int) -> bool:
    return code < 0 or code in (128 + 9, 128 + 15) or code >= 0xC0000000


def _signal_name(code: int) -> str:
    if code >= 0xC0000000:
        return f"code {code:#x}"
    number = -code if code < 0 else code - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
