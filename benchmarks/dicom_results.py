"""Size and time of DICOM results: 100 slices of 512 x 512, with few findings and many.

    python benchmarks/dicom_results.py

Every object is made alone from the results on disk; reading results and source is timed apart.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from klip_engine.detection import Finding
from klip_engine.io import read_ct
from klip_engine.io.dicom_results import DicomObject, read_written, write_dicom_results
from klip_engine.version import __version__
from klip_engine.volume import Geometry
from tests.io.dicom_files import straight_positions, write_series
from tests.io.dicom_results.cases import AXIAL, SERIES, complete_header

SHAPE = (100, 512, 512)
SPACING = (0.75, 0.75, 2.5)


def main() -> None:
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        series = folder / "series"
        hu = np.random.default_rng(0).integers(-1000, 400, SHAPE).astype(np.int16)
        positions = straight_positions(SHAPE[0], SPACING[2], AXIAL)
        write_series(series, hu, positions, pixel_mm=SPACING[:2], series=SERIES, edit=complete_header)
        start = time.perf_counter()
        loaded = read_ct(series)
        print(f"reading the series: {time.perf_counter() - start:.2f} s")
        for count in (10, 300):
            results = folder / f"results-{count}"
            write_result(results, loaded.volume.geometry, loaded.description, count)
            start = time.perf_counter()
            written = read_written(results)
            print(f"\n{count} findings; reading the results: {time.perf_counter() - start:.2f} s")
            for kind in DicomObject:
                start = time.perf_counter()
                (file,) = write_dicom_results(written, loaded, folder / "dicom", [kind])
                seconds = time.perf_counter() - start
                print(f"{kind:9} {seconds:6.2f} s {file.stat().st_size / 1e6:8.2f} MB")


def write_result(folder: Path, geometry: Geometry, description: dict, count: int) -> None:
    """`count` ellipsoids of 6 x 12 x 12 voxels on a lattice, and a smooth score."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    coarse = sitk.GetImageFromArray(rng.uniform(0, 2, (50, 64, 64)).astype(np.float32))
    score = sitk.GetArrayFromImage(sitk.Expand(coarse, [8, 8, 2]))
    regions = np.zeros(SHAPE, dtype=np.uint16)
    z, y, x = np.ogrid[-3:4, -6:7, -6:7]
    ball = (z / 3.5) ** 2 + (y / 6.5) ** 2 + (x / 6.5) ** 2 < 1
    places = [(k, j, i) for k in range(6, 94, 10) for j in range(60, 450, 40) for i in range(60, 450, 40)]
    findings = []
    for label, n in enumerate(np.linspace(0, len(places) - 1, count).astype(int).tolist(), start=1):
        k, j, i = places[n]
        box = (slice(k - 3, k + 4), slice(j - 6, j + 7), slice(i - 6, i + 7))
        regions[box][ball] = label
        value = 9.0 - 5 * label / count
        score[box][ball] = value
        centre = tuple(float(v) for v in geometry.to_lps((i, j, k)))
        findings.append(Finding(label, value, 0.01, centre, 0.6, (k - 3, k + 3)))
    for name, array in (("klip", score), ("regions", regions)):
        sitk.WriteImage(geometry.image(array), str(folder / f"{name}.nrrd"), useCompression=True)
    document = {
        "schema": "klip-findings/1",
        "engine": __version__,
        "prior": {"name": "default", "hash": "sha256:" + "0" * 64},
        "settings": {"false_alarms": 0.2, "made": "by benchmarks/dicom_results.py"},
        "input": description,
        "threshold": 3.0,
        "findings": [asdict(one) for one in findings],
    }
    (folder / "findings.json").write_text(json.dumps(document))


if __name__ == "__main__":
    main()
