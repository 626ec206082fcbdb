"""Denoising: the image itself is measured, with white noise of 50 HU.

    python examples/denoise.py [--slices 4] [-o denoise.png]

The pseudo-inverse of the identity is the measurement: what is gained is all the prior's.
"""

from __future__ import annotations

from collections.abc import Sequence

from demo_data import compare, demo_slices, draw, options, restore

from klip_engine.presets import choose_settings
from klip_engine.priors import load_prior


def main(arguments: Sequence[str] | None = None) -> tuple[float, float]:
    chosen = options(__doc__, arguments)
    prior = load_prior()
    images, body = demo_slices(prior.ct_grid, chosen.slices)
    # noise_hu is both what is added and what the data term assumes.
    settings = choose_settings("denoise", steps=chosen.steps, samples=chosen.samples)
    classical, restored = restore(images, prior, settings)
    draw(chosen.out, images, classical, restored, low=-0.25, high=0.35)
    return compare(images, classical, restored, body, 1000, "HU")


if __name__ == "__main__":
    main()
