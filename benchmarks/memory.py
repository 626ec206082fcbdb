"""Peak memory of detection and writing, on a 300-slice 512 x 512 volume, for several steps and samples.

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


RUN = """
import resource, sys
import klip_engine, klip_engine.pipeline
klip_engine.pipeline.NULL_SLICES_ON_DEMAND = 4  # the null of these settings is of no interest here
volume, out, steps, samples = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
detection = klip_engine.detect(volume, steps=steps, samples=samples, batch_slices=4 // samples)
klip_engine.write_results(detection, out)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("| steps | samples | peak memory (GB) |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder) / "volume.nrrd"
        enlarged(volume)
        for steps, samples in ((4, 1), (16, 1), (4, 4)):
            command = [sys.executable, "-c", RUN, str(volume), f"{folder}/out", str(steps), str(samples)]
            result = subprocess.run(
                command, env=os.environ | {"KLIP_CACHE": folder}, capture_output=True, text=True, check=True
            )
            print(f"| {steps} | {samples} | {int(result.stdout) / 1e6:.2f} |", flush=True)


if __name__ == "__main__":
    main()
