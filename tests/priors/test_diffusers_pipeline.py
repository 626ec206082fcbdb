"""Pipelines saved by diffusers itself: the posterior mean is what their own scheduler says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from klip_engine.describe import describe
from klip_engine.errors import PriorError
from klip_engine.priors import load_prior, save_bundle
from klip_engine.priors.base import Denoiser
from klip_engine.priors.diffusers_pipeline import schedule_betas

diffusers = pytest.importorskip("diffusers")

NETWORK: dict[str, Any] = {
    "sample_size": [16, 24],
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
}


def save_pipeline(folder: Path, channels: int = 1, **schedule: Any) -> Any:
    """A tiny pipeline as diffusers saves it; returns it."""
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(**NETWORK, in_channels=channels, out_channels=channels)
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=50, clip_sample=False, **schedule)
    pipeline = diffusers.DDPMPipeline(network.eval(), scheduler)
    pipeline.save_pretrained(folder)
    return pipeline


SCHEDULES = [
    {"beta_schedule": "linear"},
    {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.03},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"trained_betas": np.linspace(0.001, 0.2, 50).tolist()},
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_the_posterior_mean_is_that_of_the_scheduler(tmp_path: Path, channels: int, prediction: str) -> None:
    schedule = SCHEDULES[{"epsilon": 0, "sample": 1, "v_prediction": 2}[prediction]]
    pipeline = save_pipeline(tmp_path / "p", channels, prediction_type=prediction, **schedule)
    prior = load_prior(tmp_path / "p")
    denoiser = prior.denoiser
    assert isinstance(denoiser, Denoiser)
    assert (prior.name, prior.grid, denoiser.channels) == ("p", None, channels)
    assert denoiser.image_shape == (16, 24)
    alpha_bar = pipeline.scheduler.alphas_cumprod.double()
    generator = torch.Generator().manual_seed(1)
    for t in (0, 17, 40):
        vp = torch.randn(2, channels, 16, 24, generator=generator)
        with torch.no_grad():
            out = pipeline.unet(vp, t).sample
            expected = pipeline.scheduler.step(out, t, vp, generator=generator).pred_original_sample
            sigma = math.sqrt((1 - alpha_bar[t]) / alpha_bar[t])
            mean = denoiser.denoise(vp * math.sqrt(1 + sigma**2), sigma).mean
        torch.testing.assert_close(mean, expected, atol=2e-4 * (1 + sigma), rtol=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_betas_are_those_of_the_scheduler(schedule: dict[str, Any]) -> None:
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=50, **schedule)
    np.testing.assert_allclose(schedule_betas(dict(scheduler.config)), scheduler.betas, rtol=2e-5)


def test_gradients_flow_and_info_knows_it(tmp_path: Path) -> None:
    save_pipeline(tmp_path / "p")
    x = torch.zeros(1, 1, 16, 24, requires_grad=True)
    load_prior(tmp_path / "p").denoiser.denoise(x, 0.3).mean.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    facts = describe(str(tmp_path / "p"))
    assert facts["family"] == "diffusers"
    assert facts["image"] == {"shape": (16, 24), "channels": 1}


def test_it_becomes_a_bundle_and_stays_the_same_prior(tmp_path: Path) -> None:
    save_pipeline(tmp_path / "p", 3, prediction_type="v_prediction")
    prior = load_prior(tmp_path / "p")
    save_bundle(
        tmp_path / "b",
        prior.denoiser,  # type: ignore[arg-type]
        None,
        training={},
        model_card="x",
        description="x",
        dtype=torch.float32,
    )
    x = torch.linspace(-1, 1, 3 * 16 * 24).view(1, 3, 16, 24)
    with torch.no_grad():
        a, b = (load_prior(tmp_path / name).denoiser.denoise(x, 0.7).mean for name in "pb")
    assert torch.equal(a, b)


def damage(folder: Path, file: str, **changes: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("file", "changes", "sentence"),
    [
        ("model_index.json", {"unet": ["transformers", "Evil"]}, r"not a UNet2DModel"),
        ("unet/config.json", {"num_class_embeds": 10}, r"conditioned on classes"),
        ("unet/config.json", {"time_embedding_type": "fourier"}, r"reads time as 'fourier'"),
        ("unet/config.json", {"sample_size": None}, r"sample_size"),
        ("unet/config.json", {"block_out_channels": [8, 8]}, r"cannot be used"),
        ("unet/config.json", {"nonsense": 1}, r"cannot be used"),
        ("unet/config.json", {"sample_size": 10**6}, r"not two sides of 1 to 4096"),
        ("unet/config.json", {"layers_per_block": 10**7}, r"more layers than the file has weights"),
        ("unet/config.json", {"block_out_channels": [8, 2**22]}, r"cannot be used"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, r"1000000000 training times, not 2 to"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "sigmoid"}, r"schedule 'sigmoid' is not"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, r"predicts 'flow'"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, r"infinite"),
    ],
)
def test_other_pipelines_are_refused_by_name(
    tmp_path: Path, file: str, changes: dict[str, Any], sentence: str
) -> None:
    save_pipeline(tmp_path / "p")
    damage(tmp_path / "p", file, **changes)
    with pytest.raises(PriorError, match=sentence):
        load_prior(tmp_path / "p")


def test_pickled_or_missing_weights_are_refused(tmp_path: Path) -> None:
    save_pipeline(tmp_path / "p")
    weights = tmp_path / "p" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(PriorError, match=r"cannot be used"):
        load_prior(tmp_path / "p")
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(PriorError, match=r"pickle \(\.bin\), which is not opened"):
        load_prior(tmp_path / "p")
    weights.with_suffix(".bin").unlink()
    with pytest.raises(PriorError, match=r"has no weights"):
        load_prior(tmp_path / "p")
    (tmp_path / "p" / "unet" / "config.json").unlink()
    with pytest.raises(PriorError, match=r"config\.json is missing"):
        load_prior(tmp_path / "p")
