"""Peak memory of `klip-engine detect` on a 300-slice 512 x 512 volume, for several steps and samples.

    python benchmarks/memory.py

Each run is a process of its own; the figure is its largest resident set. The volume is the demo CT, enlarged.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import SimpleITK as sitk

from klip_engine.demo import demo_ct


def enlarged(path: Path, slices: int = 300, size: int = 512) -> None:
    image = sitk.ReadImage(demo_ct())
    reference = sitk.Image([size, size, slices], sitk.sitkUInt8)
    extent = [n * s for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    spacing = [max(extent[:2]) / size] * 2 + [extent[2] / slices]
    reference.SetSpacing(spacing)
    reference.SetOrigin(image.GetOrigin())
    sitk.WriteImage(sitk.Resample(image, reference, sitk.Transform(), sitk.sitkLinear, -1000.0), path, True)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("| steps | samples | peak memory (GB) |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder) / "volume.nrrd"
        enlarged(volume)
        for steps, samples in ((4, 1), (16, 1), (4, 4)):
            environment = os.environ | {"KLIP_CACHE": folder}
            command = [
                sys.executable, "-m", "klip_engine", "detect", str(volume), "-o", f"{folder}/out",
                "--steps", str(steps), "--samples", str(samples), "--batch-slices", str(4 // samples),
                "--progress", "none",
            ]  # fmt: skip
            code = f"""
import resource, subprocess, sys
subprocess.run({command!r}, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
            result = subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
            )
            print(f"| {steps} | {samples} | {int(result.stdout.split()[-1]) / 1e6:.2f} |", flush=True)


if __name__ == "__main__":
    main()
