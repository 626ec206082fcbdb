"""What a training run looks like from outside: the loss so far, the error per noise level, drawn slices."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from klip_engine.errors import UsageError
from klip_engine.priors.base import NetworkDenoiser
from klip_engine.samplers import ItemNoise, sample_prior
from klip_engine.training.trainer import TrainingReport
from klip_engine.words import install_extra


def require_matplotlib() -> None:
    """Raise UsageError, with the cure, when the pictures cannot be drawn; training checks this first."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(f"training draws pictures with matplotlib: {install_extra('train')}") from error


class TrainingDiary:
    """Keeps the history of a run beside its checkpoint and draws it; continues an earlier run's history."""

    def __init__(self, folder: Path) -> None:
        self._history = folder / "history.jsonl"
        self._picture = folder / "progress.png"
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, report: TrainingReport) -> None:
        """Append one line to the history."""
        line = {"images": report.images, "loss": report.loss, "validation": report.validation}
        with self._history.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def draw(self, denoiser: NetworkDenoiser, device: str, samples: int = 8) -> None:
        """Write progress.png: loss, validation error per noise level, slices drawn from the prior now."""
        from matplotlib.figure import Figure

        rows = [json.loads(line) for line in self._history.read_text(encoding="utf-8").splitlines()]
        noise = ItemNoise(0, [(n, 0) for n in range(samples)], (1, *denoiser.image_shape), device)
        drawn = sample_prior(denoiser, noise, steps=25)[:, 0].cpu()
        figure = Figure(figsize=(11, 9), layout="constrained")
        curves, pictures = np.asarray(figure.subfigures(2, 1, height_ratios=(1, 1.3)))
        left, right = curves.subplots(1, 2)
        _draw_loss(left, rows)
        _draw_validation(right, rows)
        _draw_slices(pictures, drawn)
        temporary = self._picture.with_suffix(".partial.png")
        figure.savefig(temporary, dpi=110)
        os.replace(temporary, self._picture)


def _draw_loss(axes: Any, rows: list[dict[str, Any]]) -> None:
    axes.plot(
        [r["images"] for r in rows],
        [r["loss"] for r in rows],
        color="tab:blue",
        lw=1,
        marker="." if len(rows) < 10 else None,
    )
    axes.set(title="Training loss (smoothed)", xlabel="images seen")
    axes.grid(alpha=0.3)


def _draw_validation(axes: Any, rows: list[dict[str, Any]]) -> None:
    checked = [r for r in rows if r["validation"]]
    axes.set(title="Denoising error on unseen patients", xlabel="images seen", ylabel="1 = constant gain")
    axes.grid(alpha=0.3)
    if not checked:
        axes.text(0.5, 0.5, "no validation data were given", ha="center", transform=axes.transAxes)
        return
    for level in checked[0]["validation"]:
        values = [r["validation"][level] for r in checked]
        axes.plot([r["images"] for r in checked], values, marker=".", label=f"{1000 * float(level):g} HU")
    axes.legend(title="noise", fontsize=8)


def _draw_slices(figure: Any, drawn: torch.Tensor) -> None:
    figure.suptitle("Slices drawn from the prior (soft tissue window)")
    panels = figure.subplots(2, (len(drawn) + 1) // 2)
    for axes, picture in zip(panels.flat, drawn, strict=False):
        axes.imshow(picture.numpy(), cmap="gray", vmin=-0.16, vmax=0.24)
        axes.axis("off")
