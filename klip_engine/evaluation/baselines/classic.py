"""A detector without learning: the Reed-Xiaoli statistic of each pixel against the ring around it.

Reed and Yu, "Adaptive Multiple-Band CFAR Detection of an Optical Pattern with Unknown Spectral Distribution",
IEEE Transactions on Acoustics, Speech, and Signal Processing 38(10), 1990, with one band and in its dual-window
form.

Chosen on stars in training patients alone (72 healthy slices, 18 stars; image / dataset level AUROC): on the
reconstructions of the default preset these four windows give 0.980 / 0.824, the best single one (5, 11, 17)
0.964 / 0.840. On the slices themselves, both with a floor of 0.02, they give 0.976 / 0.733 and the best multi-scale
Laplacian of Gaussian (Lindeberg 1998) over the local standard deviation 0.953 / 0.621.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from klip_engine.evaluation.baselines.base import Evidence, Scores
from klip_engine.priors import Denoiser

Windows = tuple[int, int, int]
"""Odd sides in pixels of the square windows: the target, the guard around it, the background around that."""


@dataclass(frozen=True)
class ReedXiaoli:
    """(mean of target - mean of background)^2 / variance of background, the largest over several sizes.

    Only pixels of the body count, so that its outline is no anomaly. A slice's score is the highest inside its
    body, 0 without one. windows: for 3 mm pixels; floor: a standard deviation (unit of the image) added in
    quadrature, since the background of a reconstruction can be flat.
    """

    windows: tuple[Windows, ...] = ((3, 7, 11), (3, 9, 15), (5, 11, 17), (7, 15, 21))
    floor: float = 0.01

    name = "Reed-Xiaoli"
    source = "Reed and Yu, IEEE TASSP 1990"
    evaluations = 0

    def fitted(self, denoiser: Denoiser, healthy: Evidence, seed: int) -> ReedXiaoli:
        """Itself: every slice is its own background."""
        return self

    def score(self, denoiser: Denoiser, evidence: Evidence, seed: int) -> Scores:
        """See `Baseline`; nothing in it is random."""
        body = evidence.body[:, None].double()
        images = evidence.reconstruction.double()
        sizes = [reed_xiaoli(images, body, windows, self.floor) for windows in self.windows]
        maps = (torch.stack(sizes).amax(dim=0) * body)[:, 0].to(evidence.reconstruction.dtype)
        return Scores(maps, maps.amax(dim=(1, 2)))


def reed_xiaoli(images: torch.Tensor, body: torch.Tensor, windows: Windows, floor: float) -> torch.Tensor:
    """The statistic of one size, [n, 1, h, w]; images and body (1 inside, 0 outside) [n, 1, h, w].

    Where no pixel of the body lies in the background it is 0.
    """
    target, guard, outer = windows
    layers = torch.cat([body, images * body, images.square() * body], dim=1)
    inner_count, inner_sum, _ = _window_sums(layers, target).split(1, dim=1)
    ring = _window_sums(layers, outer) - _window_sums(layers, guard)
    count, total, total_squares = ring.split(1, dim=1)
    mean = total / count.clamp(min=1)
    variance = (total_squares / count.clamp(min=1) - mean.square()).clamp(min=0)
    contrast = inner_sum / inner_count.clamp(min=1) - mean
    known = (count > 0.5) & (inner_count > 0.5)
    return torch.where(known, contrast.square() / (variance + floor**2), 0.0)


def _window_sums(layers: torch.Tensor, side: int) -> torch.Tensor:
    """Sums over square windows around each pixel, 0 beyond the border."""
    rows = functional.avg_pool2d(layers, (side, 1), stride=1, padding=(side // 2, 0))
    return side**2 * functional.avg_pool2d(rows, (1, side), stride=1, padding=(0, side // 2))
