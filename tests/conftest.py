"""What several test folders share: closed-form priors, shared data, small synthetic CT."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from klip_engine import cli
from klip_engine.calibration import calibrate
from klip_engine.priors import load_prior, save_bundle
from klip_engine.priors.base import PriorMean
from klip_engine.priors.network import NetworkConfig, build_denoiser
from klip_engine.settings import DetectionSettings
from klip_engine.working_grid import WorkingGrid

torch.set_num_threads(1)  # small tensors: a second thread costs more than it brings, on busy machines much more


class GaussianPrior:
    """The exact denoiser of x0 ~ N(mean, variance I): E[x0 | x_t] = (v x_t + s^2 m) / (v + s^2)."""

    def __init__(self, mean: torch.Tensor, variance: float) -> None:
        self.mean, self.data_variance = mean, variance
        self.channels, self.image_shape = 1, (mean.shape[-2], mean.shape[-1])
        self.sigma_min, self.sigma_max = 1e-4, 1e3

    def denoise(self, x: torch.Tensor, sigma: float) -> PriorMean:
        v, s2 = self.data_variance, sigma**2
        mean = (v * x + s2 * self.mean) / (v + s2)
        return PriorMean(mean, torch.full_like(mean, v * s2 / (v + s2)).log())


def run_cli(capsys, *arguments) -> tuple[int, str, str]:
    """`klip-engine` with these arguments, in this process: exit code, standard output and standard error."""
    before, sys.argv = sys.argv, ["klip-engine", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stop:
            cli.main()
    finally:
        sys.argv = before
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


def save_wiener_prior(folder: Path, grid: WorkingGrid, nulls: Iterable[DetectionSettings] = ()) -> Path:
    """A bundle whose behaviour is known: an untrained network is the Wiener filter of N(mean, variance).

    With its null distributions (of 8 slices) for the settings in `nulls`, so that no run stops to measure one.
    """
    network = NetworkConfig((4, 4, 4), (1, 1, 1), (False, False, False), 4, 4)
    facts = {"training": {"patients": 0}, "model_card": "# wiener\n", "description": "a Gaussian prior"}
    save_bundle(folder, build_denoiser(network, grid.shape), grid, **facts)
    for settings in nulls:
        calibrate(load_prior(folder, "cpu"), settings, "cpu", count=8).save(folder / "null")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    """Tests neither read nor write the user's cache; they share one of their own."""
    folder = Path(tmp_path_factory.getbasetemp()) / "klip-cache"
    monkeypatch.setenv("KLIP_CACHE", str(folder))
    return folder


def shared_folder() -> Path | None:
    """The folder with real CT, where there is one."""
    candidates = [os.environ.get("KLIP_SHARED"), Path(__file__).resolve().parents[2] / "shared"]
    for candidate in candidates:
        if candidate and (Path(candidate) / "ct").is_dir():
            return Path(candidate)
    return None


@pytest.fixture(scope="session")
def shared_ct() -> Path:
    folder = shared_folder()
    if folder is None:
        pytest.skip("needs the shared CT collection (../shared or KLIP_SHARED), which is not here")
    return folder / "ct"


def torso(slices: int = 6, size: tuple[int, int] = (96, 120), seed: int = 0) -> np.ndarray:
    """A synthetic torso in HU, [slices, *size] on 4 mm pixels: body, lungs, spine, a little noise."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    y = (rows - size[0] / 2) / (size[0] * 0.36)
    x = (columns - size[1] / 2) / (size[1] * 0.40)
    hu = np.full(size, -1000.0)
    hu[x**2 + y**2 < 1] = 40
    for side in (-1, 1):
        hu[((x - side * 0.45) / 0.3) ** 2 + (y / 0.55) ** 2 < 1] = -850
    hu[(x / 0.12) ** 2 + ((y - 0.65) / 0.15) ** 2 < 1] = 350
    noise = np.random.default_rng(seed).normal(0, 8, (slices, *size))
    return (np.repeat(hu[None], slices, axis=0) + noise).astype(np.float32)
