"""How far each line integral can be trusted, where the file does not say: from its dose, or from its own noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from klip_engine.projections import Projections

_LARGEST_I0 = 1e7
"""Photons per ray beyond which no scanner goes: smooth or noiseless data would seem to have infinitely many."""
_SAMPLED_VIEWS = 200
_FEWEST = np.float32(1e-30)
"""Photons behind which a ray counts for nothing."""


def known_or_estimated_weights(projections: Projections) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Inverse variances [view, row, column], and what to say where they are guesses.

    With I0 photons per ray c = I0 exp(-p) arrive, and 1 / variance = c^2 / (c + sigma_e^2) to first order. Without,
    I0 is estimated from how much a ray differs from the mean of its neighbours.
    """
    if projections.weights is not None:
        return projections.weights, ()
    i0 = projections.i0
    notices: tuple[str, ...] = ()
    if i0 is None:
        i0 = estimated_i0(projections.line_integrals)
        notices = (
            "The projections say nothing about their noise; it was estimated from the differences of neighbouring "
            f"rays, as that of {i0:.2g} photons per ray.",
        )
    counts = np.float32(i0) * np.exp(-projections.line_integrals.astype(np.float32))
    variance = np.float32(projections.electronic_sigma or 0.0) ** 2
    weights: npt.NDArray[np.float32] = counts * (counts / np.maximum(counts + variance, _FEWEST))
    return weights, notices


def estimated_i0(line_integrals: npt.NDArray[np.float32]) -> float:
    """Photons per ray that would make neighbours differ as much as they do; at most `_LARGEST_I0`.

    p_j - (p_(j-1) + p_(j+1)) / 2 has 3/2 of the variance exp(p) / I0; the median of its square ignores edges.
    """
    rows = line_integrals[:: max(1, len(line_integrals) // _SAMPLED_VIEWS)].astype(np.float64)
    if rows.shape[-1] < 3:
        return _LARGEST_I0
    middle = rows[..., 1:-1]
    squared = np.square(middle - (rows[..., :-2] + rows[..., 2:]) / 2) * np.exp(-middle) / 1.5
    in_object = middle > 0.1
    typical = float(np.median(squared[in_object] if in_object.any() else squared))
    return float(min(_LARGEST_I0, 0.4549 / max(typical, 0.4549 / _LARGEST_I0)))
