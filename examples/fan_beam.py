"""Sparse-view CT with a fan beam: 24 views over 360 degrees on a flat detector.

    python examples/fan_beam.py [--slices 4] [-o fan_beam.png]

The geometry of a clinical scanner: source 595 mm from the isocentre, detector 1086 mm from the source. For a curved
detector, `choose_settings("fan-24", operator="fan-curved")`.
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
    # Magnification and the fan's angle are the operator's; the prior does not know of them.
    settings = choose_settings("fan-24", steps=chosen.steps, samples=chosen.samples)
    classical, restored = restore(images, prior, settings)
    draw(chosen.out, images, classical, restored, low=-1, high=0.4)
    return compare(images, classical, restored, body, 1000, "HU")


if __name__ == "__main__":
    main()
