"""How exact and how fast the CT operators are, on this machine, in one table.

    python benchmarks/operators.py [--size 512] [--views 24] [--batch 8] [--repeats 7] [--json FILE]

ASTRA's CPU projector is timed in the same run, call after call in turn with ours, image by image, as that is how it
is called. Ratios are our time over ASTRA's of the same turn: median (quartiles). No time includes set-up; that of
the system matrix is listed on its own. 720 views of 512 x 512: --views 720 --batch 1 --fbp-views 24.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from klip_engine.operators import (
    CTOperator,
    FanCurvedGeometry,
    FanFlatGeometry,
    ParallelGeometry,
    ScanGeometry,
    filtered_back_projection,
    matrix_cache,
)
from klip_engine.operators.phantom import ASYMMETRIC_PHANTOM, phantom_image, phantom_sinogram

try:
    import astra
except ImportError:
    astra = None

FIELD_OF_VIEW_MM = 358.4
PLATEAUS = ((0, -70, 1.0), (-66, 10, 0.3), (66, -40, 0.3), (4, 74, 1.6), (66, 54, 1.06), (0, 20, 1.0))
ASTRA_PROJECTORS = {"parallel": "line", "fan-flat": "line_fanflat"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="pixels per side")
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--fbp-views", type=int, default=720)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    results = {}
    for geometry_type in (ParallelGeometry, FanFlatGeometry, FanCurvedGeometry):
        grid = {
            "image_shape": (options.size, options.size),
            "pixel_spacing_mm": FIELD_OF_VIEW_MM / options.size,
            "detector_offset_bins": 0.25,
        }
        scan = geometry_type.evenly_spaced(options.views, **grid)
        full_scan = geometry_type.evenly_spaced(options.fbp_views, **grid)
        results[scan.kind] = measure(scan, options.batch, options.repeats) | fbp_errors(full_scan)
        matrix_cache.clear()

    print(
        f"{options.size} x {options.size}, {options.views} views, batch {options.batch}, "
        f"{options.threads} thread(s)"
    )
    print_table(results)
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name != "json"}
        options.json.write_text(json.dumps({"settings": settings, "results": results}, indent=2) + "\n")


def measure(scan: ScanGeometry, batch: int, repeats: int) -> dict[str, float | None]:
    """Errors and times of projection and back-projection."""
    operator = CTOperator(scan)
    image = phantom_image(ASYMMETRIC_PHANTOM, scan).float()
    started = time.perf_counter()
    sinogram = operator.forward(image)
    setup_s = time.perf_counter() - started
    images, sinograms = image.repeat(batch, 1, 1, 1), sinogram.repeat(batch, 1, 1)
    calls: dict[str, Callable[[], object]] = {
        "forward": lambda: operator.forward(images),
        "adjoint": lambda: operator.adjoint(sinograms),
    }
    astra_error, astra_calls = calls_of_astra(scan, image, sinogram, batch)
    times = interleaved_times_ms(calls | astra_calls, repeats)
    result: dict[str, float | None] = {
        "adjoint error": adjoint_error(operator),
        "error vs ellipses": relative_error(sinogram, phantom_sinogram(ASYMMETRIC_PHANTOM, scan)),
        "error vs ASTRA": astra_error,
        "set-up s": setup_s,
        "matrix MB": operator.matrix_bytes() / 1e6,
    }
    for name in calls:
        theirs = times.get(f"ASTRA {name}")
        ratios = [a / b for a, b in zip(times[name], theirs, strict=True)] if theirs else [None] * 3
        low, median, high = statistics.quantiles(ratios, n=4) if theirs else ratios
        result |= {
            f"{name} ms": statistics.median(times[name]),
            f"ASTRA {name} ms": statistics.median(theirs) if theirs else None,
            f"{name} ratio": median,
            f"{name} ratio, low quartile": low,
            f"{name} ratio, high quartile": high,
        }
    return result


def fbp_errors(scan: ScanGeometry) -> dict[str, float]:
    """Largest plateau error of each filter from exact projections, in HU (the phantom's unit is water)."""
    sinogram = phantom_sinogram(ASYMMETRIC_PHANTOM, scan).float()
    errors = {}
    for filter_name in ("ram-lak", "hann"):
        image = filtered_back_projection(sinogram, scan, filter_name)[0, 0]
        errors[f"FBP plateau HU, {filter_name}"] = max(
            abs(1000 * (plateau_mean(image, scan, x, y) - value)) for x, y, value in PLATEAUS
        )
    return errors


def plateau_mean(image: torch.Tensor, scan: ScanGeometry, x_mm: float, y_mm: float) -> float:
    rows, columns = scan.image_shape
    row = round(y_mm / scan.pixel_spacing_mm + (rows - 1) / 2)
    column = round(x_mm / scan.pixel_spacing_mm + (columns - 1) / 2)
    return float(image[row - 3 : row + 4, column - 3 : column + 4].mean())


def adjoint_error(operator: CTOperator) -> float:
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, *operator.image_shape, generator=rng)
    measurement = torch.rand(1, *operator.measurement_shape, generator=rng)
    projected, back_projected = operator.forward(image).double(), operator.adjoint(measurement).double()
    difference = (projected * measurement).sum() - (image * back_projected).sum()
    return float(abs(difference) / (projected.norm() * measurement.double().norm()))


def calls_of_astra(
    scan: ScanGeometry, image: torch.Tensor, sinogram: torch.Tensor, batch: int
) -> tuple[float | None, dict[str, Callable[[], object]]]:
    """Difference from ASTRA's line projector and its products with a batch; nothing without such a geometry."""
    if astra is None or scan.kind not in ASTRA_PROJECTORS:
        return None, {}
    projector = astra.OpTomo(astra.create_projector(ASTRA_PROJECTORS[scan.kind], *astra_geometry(scan)))
    flat_image, flat_sinogram = image.numpy().ravel(), sinogram.numpy().ravel()
    theirs = torch.from_numpy(projector.FP(image[0, 0].numpy()))
    return relative_error(sinogram[0], theirs), {
        "ASTRA forward": lambda: [projector.matvec(flat_image) for _ in range(batch)],
        "ASTRA adjoint": lambda: [projector.rmatvec(flat_sinogram) for _ in range(batch)],
    }


def astra_geometry(scan: ScanGeometry) -> tuple[Any, Any]:
    """The same scan for ASTRA, whose y axis points up."""
    half = [0.5 * side * scan.pixel_spacing_mm for side in scan.image_shape]
    volume = astra.create_vol_geom(*scan.image_shape, -half[1], half[1], -half[0], half[0])
    angle = np.array(scan.view_angles_rad)
    u = np.stack([np.cos(angle), -np.sin(angle)], axis=1)
    d = np.stack([-np.sin(angle), -np.cos(angle)], axis=1)
    step = scan.detector_pitch_mm * u
    centre = scan.detector_offset_bins * step
    if isinstance(scan, FanFlatGeometry):
        source = -scan.source_to_isocentre_mm * d
        centre = centre + (scan.source_to_detector_mm - scan.source_to_isocentre_mm) * d
        vectors, kind = np.concatenate([source, centre, step], axis=1), "fanflat_vec"
    else:
        vectors, kind = np.concatenate([d, centre, step], axis=1), "parallel_vec"
    return astra.create_proj_geom(kind, scan.detector_count, vectors), volume


def interleaved_times_ms(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - started))
    return times


def relative_error(result: torch.Tensor, truth: torch.Tensor) -> float:
    return float((result.double() - truth.double()).norm() / truth.double().norm())


def print_table(results: dict[str, dict[str, float | None]]) -> None:
    print(f"{'':26}" + "".join(f"{kind:>14}" for kind in results))
    for row in next(iter(results.values())):
        values = (result[row] for result in results.values())
        print(f"{row:26}" + "".join(f"{'-' if value is None else f'{value:.3g}':>14}" for value in values))


if __name__ == "__main__":
    main()
