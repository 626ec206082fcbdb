"""Whether Apply can do anything, and if not, the sentence that says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from .command import interpreter_in
from .result_nodes import ROLE


def why_not(parameters: Any, own_python: str) -> str:
    """Why a run with these parameters cannot start; empty when it can. Quick: called at every change.

    own_python: the Python environment to run the engine in; empty for Slicer's own.
    """
    return _input(parameters) or _prior(parameters) or _environment(own_python) or _results(parameters)


def _input(parameters: Any) -> str:
    if parameters.useInputFile:
        if not parameters.inputFile:
            return _("Choose the projection file to look at.")
        if not Path(parameters.inputFile).exists():
            return _("There is no file {path}; choose another projection file.").format(path=parameters.inputFile)
        return ""
    if parameters.inputVolume is None:
        return _("Load a CT and choose its volume as input.")
    if parameters.inputVolume.GetAttribute(ROLE):
        return _("{name} is itself a result of KLIP; choose the CT it was computed from.").format(
            name=parameters.inputVolume.GetName()
        )
    from klip_engine.errors import InputError

    from .export_input import checked_ijk_to_lps

    try:
        checked_ijk_to_lps(parameters.inputVolume)
    except InputError as error:
        return str(error)[:1].upper() + str(error)[1:] + "."
    return ""


def _prior(parameters: Any) -> str:
    if not parameters.useOwnPrior:
        return ""
    if not parameters.priorFolder:
        return _("Choose the folder of the prior, or the default prior.")
    if not (Path(parameters.priorFolder) / "configs").is_dir():
        return _("{path} is no prior: it has no folder 'configs'; choose the folder of a bundle.").format(
            path=parameters.priorFolder
        )
    return ""


def _environment(own_python: str) -> str:
    if not own_python:
        return ""
    try:
        interpreter_in(own_python)
    except FileNotFoundError as error:
        return _("Advanced: {reason}.").format(reason=error)
    return ""


def _results(parameters: Any) -> str:
    folder = parameters.resultsFolder
    if not folder or Path(folder).is_dir():
        return ""
    return _("Advanced: there is no folder {path} for the results; choose another or leave it empty.").format(
        path=folder
    )
