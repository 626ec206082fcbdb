"""The optional package that builds structured reports."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from klip_engine.errors import UsageError


def structured_reporting() -> ModuleType:
    """highdicom.sr; raises UsageError, with the cure, where highdicom is not installed."""
    try:
        return import_module("highdicom.sr")
    except ImportError as error:
        raise UsageError(
            "DICOM results need the package highdicom, which is not installed: pip install klip-engine[dicom]"
        ) from error
