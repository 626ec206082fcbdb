"""Deblurring of grey images: the Gaussian blur of the KLIP paper, on slices of a CT, with a little noise.

    python examples/deblur_grey.py [--slices 4] [-o deblur_grey.png]

The paper's kernel is 21 x 21 with sigma 9 for images of 256 x 256; it scales with the image (here 11 x 11, 4.5).
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
    # The pseudo-inverse divides by the blur's gain; frequencies with a gain below 0.02 are given up.
    settings = choose_settings("deblur", steps=chosen.steps, samples=chosen.samples)
    classical, restored = restore(images, prior, settings)
    draw(chosen.out, images, classical, restored, low=-1, high=0.4)
    return compare(images, classical, restored, body, 1000, "HU")


if __name__ == "__main__":
    main()
