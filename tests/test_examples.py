"""Every example runs, in small form, and its prior restores better than the pseudo-inverse."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "demo_data")


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_example_runs_and_restores_better_than_the_pseudo_inverse(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    picture = tmp_path / "sheet.png"
    classical, restored = main(["--slices", "1", "--steps", "4", "--samples", "1", "-o", str(picture)])
    assert restored < classical
    with Image.open(picture) as sheet:
        assert sheet.size == (3 * 160, 128)
        assert sheet.mode == ("RGB" if name == "deblur_rgb" else "L")


def test_the_rgb_example_keeps_a_bundle_that_detect_can_use(tmp_path, monkeypatch):
    from klip_engine.photograph import fit_prior
    from klip_engine.pipeline import read_input
    from klip_engine.priors import load_prior

    monkeypatch.syspath_prepend(str(EXAMPLES))
    main = runpy.run_path(str(EXAMPLES / "deblur_rgb.py"))["main"]
    main(["--slices", "1", "--steps", "2", "--samples", "1", "--bundle", str(tmp_path)])
    prior = load_prior(tmp_path / "prior")
    loaded = read_input(tmp_path / "photo.png", prior)
    denoiser = prior.denoiser
    assert fit_prior(loaded.photograph, "photo", denoiser.image_shape, denoiser.channels, "p").images.shape[1] == 3
