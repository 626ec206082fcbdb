"""The frame around every command: how it reports, how it is stopped, and the exit code it leaves with."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from klip_engine.console import ProgressStyle, Reporter, make_reporter, stop_on_signals
from klip_engine.errors import Cancelled, KlipError, resource_errors
from klip_engine.version import __version__

if TYPE_CHECKING:
    from klip_engine.settings import DetectionSettings

IsCancelled = Callable[[], bool]


def run(work: Callable[[Reporter, IsCancelled], None], style: ProgressStyle) -> None:
    """Run a command, report its outcome, and leave with its exit code when it failed."""
    reporter = make_reporter(style)
    try:
        with stop_on_signals() as stop, resource_errors():
            work(reporter, stop.is_set)
    except KlipError as error:
        reporter.error(error)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as interrupt:
        reporter.error(_stopped())
        raise typer.Exit(Cancelled.exit_code) from interrupt
    except BrokenPipeError:  # whoever read what is printed has enough: `klip-engine info scan | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except Exception as error:
        reporter.error(KlipError(_unexpected(error)))
        raise typer.Exit(KlipError.exit_code) from error
    finally:
        reporter.close()


def stop_if(cancelled: IsCancelled) -> None:
    """Raise Cancelled on request; asked before results are written."""
    if cancelled():
        raise _stopped()


def start_facts(prior: str, settings: DetectionSettings) -> dict[str, Any]:
    """What a command that computes slices says at its start."""
    return {
        "version": __version__,
        "prior": prior,
        "operator": settings.operator.name,
        "score": settings.score.name,
        "evaluations_per_slice": settings.sampling.evaluations,
    }


def _stopped() -> Cancelled:
    return Cancelled("stopped on request; nothing was written")


def _unexpected(error: Exception) -> str:
    """A sentence for an error nobody foresaw; the traceback only on request, it may hold the user's paths."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the Python package {error.name} is missing in {sys.executable}; install klip-engine there anew"
    if os.environ.get("KLIP_DEBUG"):
        traceback.print_exc()
    return f"unexpected {type(error).__name__}; set KLIP_DEBUG=1 to see where, and please report it"
