"""KLIP: finds what does not belong in a CT scan, without having been shown an example of it.

    import klip_engine
    detection = klip_engine.detect("chest.nrrd", false_alarms=0.01)
    klip_engine.write_results(detection, "out")

Research software, not a medical device.
"""

from __future__ import annotations

from typing import Any

from klip_engine.version import __version__

__all__ = ["CTVolume", "Detection", "DetectionSettings", "__version__", "detect", "read_ct", "write_results"]

_HOMES = {
    "detect": "klip_engine.pipeline",
    "read_ct": "klip_engine.io",
    "write_results": "klip_engine.io",
    "CTVolume": "klip_engine.volume",
    "Detection": "klip_engine.detection",
    "DetectionSettings": "klip_engine.settings",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: torch and MONAI take seconds to load."""
    if name not in _HOMES:
        raise AttributeError(f"module 'klip_engine' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
