"""Deblurring of RGB images with a Gaussian prior.

    python examples/deblur_rgb.py [--slices 4] [-o deblur_rgb.png] [--bundle FOLDER]

The pictures are the demo CT in false colours (red: lung window, green: soft tissue, blue: bone). The engine
brings no prior of photographs along; this one is fitted in closed form to the slices that are not restored. They
are of the same patient, so it knows more of these pictures than a prior of other people's would. With --bundle it
is kept, with one picture, for `klip-engine detect`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from demo_data import compare, demo_slices, draw, options, restore

from klip_engine.io import png_bytes
from klip_engine.presets import choose_settings
from klip_engine.priors import load_prior, save_bundle
from klip_engine.priors.gaussian import SpectralGaussian
from klip_engine.working_grid import WorkingGrid

WINDOWS = ((-1.0, -0.4), (-0.2, 0.3), (0.0, 1.0))
"""Black and white of red, green and blue, in x = HU / 1000."""


def coloured(slices: torch.Tensor) -> torch.Tensor:
    """CT slices [n, 1, h, w] as pictures [n, 3, h, w] with values in [-1, 1]."""
    channels = [(2 * (slices - low) / (high - low) - 1).clamp(-1, 1) for low, high in WINDOWS]
    return torch.cat(channels, dim=1)


def main(arguments: Sequence[str] | None = None) -> tuple[float, float]:
    chosen = options(__doc__, arguments)
    slices, _ = demo_slices(WorkingGrid(), 22)
    pictures = coloured(slices)
    held_out = torch.linspace(0, 21, chosen.slices + 2).round().long()[1:-1]
    others = [number for number in range(22) if number not in held_out]
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.bundle or Path(temporary)
        save_bundle(
            folder / "prior", SpectralGaussian.fitted(pictures[others]), None,
            training={"pictures": len(others)}, model_card="# False-colour CT, Gaussian\n",
            description="A Gaussian prior of false-colour CT slices",
        )  # fmt: skip
        prior = load_prior(folder / "prior")
        settings = choose_settings("deblur", steps=chosen.steps, samples=chosen.samples)
        classical, restored = restore(pictures[held_out], prior, settings)
        if chosen.bundle is not None:
            pixels = (127.5 * (pictures[held_out[0]] + 1)).round().byte().permute(1, 2, 0)
            (folder / "photo.png").write_bytes(png_bytes(pixels.numpy()))
            print(f"klip-engine detect {folder}/photo.png -o out --prior {folder}/prior --preset deblur")
    draw(chosen.out, pictures[held_out], classical, restored)
    everywhere = torch.ones(len(held_out), *pictures.shape[-2:], dtype=torch.bool).numpy()
    return compare(pictures[held_out], classical, restored, everywhere, 127.5, "of 255")


if __name__ == "__main__":
    main()
