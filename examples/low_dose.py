"""Low-dose CT: 180 parallel views with 100,000 photons per ray, and electronic noise.

    python examples/low_dose.py [--slices 4] [-o low_dose.png]

Nothing is missing here, but every ray is noisy, those through the shoulders most.
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
    # Each ray counts in the data term by the photons that came through it.
    settings = choose_settings("low-dose", steps=chosen.steps, samples=chosen.samples)
    classical, restored = restore(images, prior, settings)
    draw(chosen.out, images, classical, restored, low=-0.25, high=0.35)
    return compare(images, classical, restored, body, 1000, "HU")


if __name__ == "__main__":
    main()
