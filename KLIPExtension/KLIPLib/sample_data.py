"""The demonstration scan in the module Sample Data: the one that comes with the engine, nothing is downloaded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

CATEGORY = "KLIP"
SAMPLE_NAME = "CT chest with inserted nodule"
NODE_NAME = "KLIP demo CT"
_FILE_NAME = "klip-demo-ct.nrrd"
_THUMBNAIL = Path(__file__).resolve().parents[1] / "Resources" / "Icons" / "SampleData.png"


def register(sample_data: Any = None) -> None:
    """Register the scan, once; registering again changes nothing. To be called when Slicer has started.

    sample_data: Slicer's module SampleData. Raises FileNotFoundError when the engine came without its data.
    """
    if sample_data is None:
        import SampleData as sample_data  # there once Slicer has started
    scan = demo_scan()
    sample_data.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=SAMPLE_NAME,
        uris=scan.as_uri(),
        fileNames=_FILE_NAME,
        nodeNames=NODE_NAME,
        thumbnailFileName=str(_THUMBNAIL),
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
