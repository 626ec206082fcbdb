"""The demonstration scan in the module Sample Data: the one that comes with the engine, nothing is downloaded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

CATEGORY = "KLIP"
SAMPLE_NAME = "CT chest with inserted nodule"
NODE_NAME = "KLIP demo CT"
_FILE_NAME = "klip-demo-ct.nrrd"


def register(sample_data: Any, resources: Path) -> None:
    """Register the scan, once; registering again changes nothing.

    sample_data: Slicer's module SampleData; resources: the module's Resources folder, for the thumbnail.
    To be called when Slicer has started (the signal startupCompleted()). Raises FileNotFoundError when the engine
    was installed without its data.
    """
    scan = demo_scan()
    sample_data.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=SAMPLE_NAME,
        uris=scan.as_uri(),
        fileNames=_FILE_NAME,
        nodeNames=NODE_NAME,
        thumbnailFileName=str(Path(resources) / "Icons" / "SampleData.png"),
        loadFileTypes="VolumeFile",
        # Sample Data keeps a copy in its cache and compares it: an updated scan replaces the old copy.
        checksums=f"SHA256:{hashlib.sha256(scan.read_bytes()).hexdigest()}",
    )


def demo_scan() -> Path:
    """The scan's file, in the klip_engine that is imported here; imports nothing of it but the package itself."""
    import klip_engine

    scan = Path(klip_engine.__file__).resolve().parent / "data" / "demo" / "demo_ct.nrrd"
    if not scan.is_file():
        raise FileNotFoundError(f"{scan} is missing; install the extension KLIP again")
    return scan
