"""Sparse-view CT: 24 parallel views over 180 degrees, the task of the KLIP paper.

    python examples/sparse_view.py [--slices 4] [-o sparse_view.png]

Filtered back-projection leaves streaks; the prior fills in what the views between would have said.
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
    # 24 line-integral views without noise; `views=` takes any other number.
    settings = choose_settings("sparse-24", steps=chosen.steps, samples=chosen.samples)
    classical, restored = restore(images, prior, settings)
    draw(chosen.out, images, classical, restored, low=-1, high=0.4)
    return compare(images, classical, restored, body, 1000, "HU")


if __name__ == "__main__":
    main()
