"""The optional package that builds structured reports."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from klip_engine.errors import UsageError
from klip_engine.words import install_extra


def structured_reporting() -> ModuleType:
    """highdicom.sr; raises UsageError, with the cure, where highdicom is not installed."""
    try:
        return import_module("highdicom.sr")
    except ImportError as error:
        raise UsageError(f"DICOM results need the package highdicom: {install_extra('dicom')}") from error
