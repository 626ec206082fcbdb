"""What the examples share: slices of the demo CT, measuring and restoring, errors and pictures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from klip_engine.demo import demo_ct
from klip_engine.io import png_bytes, read_ct
from klip_engine.priors import PriorBundle
from klip_engine.scoring.klip import ScoreTerm
from klip_engine.settings import DetectionSettings
from klip_engine.slices import NetworkMeter, scanner_and_sampler, score_slices
from klip_engine.working_grid import WorkingGrid, to_working_grid


def options(description: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of every example; None leaves what the preset says."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=4, help="slices of the demo CT, evenly spread")
    parser.add_argument("--steps", type=int, help="noise levels")
    parser.add_argument("--samples", type=int, help="posterior samples, averaged")
    parser.add_argument("-o", "--out", type=Path, help="PNG: truth, pseudo-inverse and restored, a slice a row")
    parser.add_argument("--bundle", type=Path, help="deblur_rgb: a folder to keep the prior and a picture in")
    return parser.parse_args(arguments)


def demo_slices(grid: WorkingGrid, count: int) -> tuple[torch.Tensor, np.ndarray]:
    """Slices of the demo CT on a prior's grid: x = HU / 1000 [count, 1, h, w], and the body [count, h, w]."""
    working = to_working_grid(read_ct(demo_ct()).volume, grid)
    pick = np.linspace(0, len(working.hu) - 1, count + 2).round().astype(int)[1:-1]
    return torch.from_numpy(working.images[pick]), working.body[pick]


def restore(
    images: torch.Tensor, prior: PriorBundle, settings: DetectionSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Measure images [n, channels, h, w] as the settings say; the pseudo-inverse and the posterior mean."""
    scanner, sampler = scanner_and_sampler(prior, settings)
    measurement = scanner.measure(images, range(len(images)))
    classical = scanner.operator.pseudo_inverse(measurement.data)
    scored = score_slices(  # measures the same again: noise belongs to seed and slice
        images, scanner, NetworkMeter(prior.denoiser), sampler, [ScoreTerm()],
        samples=settings.sampling.samples, seed=settings.seed, antithetic=settings.sampling.antithetic,
        batch_slices=settings.batch_slices, device="cpu",
    )  # fmt: skip
    return classical, scored.reconstruction


def compare(
    truth: torch.Tensor, classical: torch.Tensor, restored: torch.Tensor, body: np.ndarray, scale: float, unit: str
) -> tuple[float, float]:
    """Print and return the root mean square errors inside the body, median over the slices, in x * scale."""

    def error(images: torch.Tensor) -> float:
        squares = (scale * (images - truth)).square().mean(dim=1).numpy()
        return float(np.median([np.sqrt(one[inside].mean()) for one, inside in zip(squares, body, strict=True)]))

    errors = error(classical), error(restored)
    print(
        f"pseudo-inverse {errors[0]:.1f} {unit}, restored {errors[1]:.1f} {unit}, ratio {errors[1] / errors[0]:.2f}"
    )
    return errors


def draw(path: Path | None, *columns: torch.Tensor, low: float = -1.0, high: float = 1.0) -> None:
    """Write images [n, channels, h, w] as a PNG, one column each; black at low, white at high."""
    if path is None:
        return
    sheet = torch.cat([torch.cat(list(column), dim=1) for column in columns], dim=2)
    grey = (255 * (sheet - low) / (high - low)).clamp(0, 255).round().byte()
    path.write_bytes(png_bytes(grey.permute(1, 2, 0).squeeze(-1).numpy()))
    print(f"written: {path}")
