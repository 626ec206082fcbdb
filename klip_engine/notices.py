"""What the reader of a result should know about how it came about: sentences, none where all is as usual."""

from __future__ import annotations

from collections.abc import Sequence

from klip_engine.photograph import WorkingPhotograph
from klip_engine.priors import Denoiser
from klip_engine.scoring.null import NullDistribution
from klip_engine.settings import ScoreSettings
from klip_engine.stacks import FEWEST_SLICES, within_reach
from klip_engine.working_grid import WorkingVolume

TELLING_FACTOR = 1.5
"""How far the level of a scan may be from that of the null before the result says so."""


def range_notices(levels: Sequence[float], denoiser: Denoiser) -> tuple[str, ...]:
    """What the reader should know where the sampler asks for noise levels the prior was not trained on."""
    if levels[0] <= denoiser.sigma_max * 1.001 and levels[-1] >= denoiser.sigma_min / 1.001:
        return ()
    return (
        f"The sampler visits noise levels from {levels[0]:.3g} to {levels[-1]:.3g}; the prior was trained on "
        f"{denoiser.sigma_max:.3g} to {denoiser.sigma_min:.3g} and is outside what it has learnt beyond them.",
    )


def neighbour_notices(asked: ScoreSettings, used: ScoreSettings, slices: int, spacing_mm: float) -> tuple[str, ...]:
    """What the reader should know where slices were to be looked at together and could not."""
    if asked == used:
        return ()
    if slices < FEWEST_SLICES:
        return (f"Fewer than {FEWEST_SLICES} slices: each was scored on its own, which finds less.",)
    if not within_reach(spacing_mm):
        return (f"The slices lie {spacing_mm:.3g} mm apart: each was scored on its own, which finds less.",)
    return (
        "Each slice was scored on its own, which finds less: the prior keeps too few healthy slices with "
        "neighbours to compare with. `klip-engine calibrate --healthy` keeps such slices.",
    )


def level_notices(null: NullDistribution) -> tuple[str, ...]:
    """What the reader should know where the whole scan scores otherwise than the null."""
    if 1 / TELLING_FACTOR < null.scan_factor < TELLING_FACTOR:
        return ()
    than = "higher" if null.scan_factor > 1 else "lower"
    return (
        f"Most slices of this scan score {than} than the healthy ones behind the null distribution, which was "
        f"multiplied by {null.scan_factor:.2f}: what is unusual in most of its slices is not marked.",
    )


def grid_notices(working: WorkingVolume | WorkingPhotograph) -> tuple[str, ...]:
    """What the reader should know where part of the body was not looked at."""
    if working.cut_off < 0.002:
        return ()
    return (
        f"{100 * working.cut_off:.1f} % of the body lies outside the prior's field of view and was not looked at.",
    )
