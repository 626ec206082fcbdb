"""KLIP: finds what does not belong in a CT scan, without having been shown an example of it.

    import klip_engine
    detection = klip_engine.detect("chest.nrrd", false_alarms=0.01)
    klip_engine.write_results(detection, "out")

Research software, not a medical device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klip_engine.version import __version__

__all__ = [
    "CTVolume",
    "Detection",
    "DetectionSettings",
    "Geometry",
    "KlipError",
    "Photograph",
    "__version__",
    "detect",
    "load_prior",
    "read_ct",
    "write_results",
]

if TYPE_CHECKING:
    from klip_engine.detection import Detection
    from klip_engine.errors import KlipError
    from klip_engine.io import read_ct, write_results
    from klip_engine.photograph import Photograph
    from klip_engine.pipeline import detect
    from klip_engine.priors import load_prior
    from klip_engine.settings import DetectionSettings
    from klip_engine.volume import CTVolume, Geometry

_HOMES = {
    "detect": "klip_engine.pipeline",
    "read_ct": "klip_engine.io",
    "write_results": "klip_engine.io",
    "CTVolume": "klip_engine.volume",
    "Geometry": "klip_engine.volume",
    "KlipError": "klip_engine.errors",
    "Photograph": "klip_engine.photograph",
    "load_prior": "klip_engine.priors",
    "Detection": "klip_engine.detection",
    "DetectionSettings": "klip_engine.settings",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: torch and MONAI take seconds to load."""
    if name not in _HOMES:
        raise AttributeError(f"module 'klip_engine' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
