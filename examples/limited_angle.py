"""Limited-angle CT: 120 parallel views over 120 of 180 degrees.

    python examples/limited_angle.py [--slices 4] [-o limited_angle.png]

A third of the directions is never seen, so edges along them are lost to every linear method.
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
    # Views are dense where they are: what is missing is a whole wedge of the Fourier plane.
    settings = choose_settings("limited-angle", steps=chosen.steps, samples=chosen.samples)
    classical, restored = restore(images, prior, settings)
    draw(chosen.out, images, classical, restored, low=-1, high=0.4)
    return compare(images, classical, restored, body, 1000, "HU")


if __name__ == "__main__":
    main()
