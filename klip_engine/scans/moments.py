"""Helgason-Ludwig conditions on parallel beams: the mass of every view is the same, and the n-th moment about the
axis is a trigonometric polynomial of degree n of the view angle (Natterer, "The Mathematics of Computerized
Tomography", 1986, section II.4). Asked for n = 0, 1, 2 where no line was measured from both sides.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from klip_engine.scans.measured import MeasuredSlices

Numbers = npt.NDArray[np.float64]

_LEAST_VIEWS = 12
_LEAST_SHIFT_MM = 0.5
_LARGEST_WOBBLE_MM = 1.5
_LARGEST_MASS_CHANGE = 0.05
_LARGEST_MASS_CHANGE_TO_REFUSE = 0.15
"""A beam whose intensity drifts moves the moments of thin objects as wrong angles do."""
_DECISIVE = {"centre of mass": (3.0, 0.5), "width": (1.5, 0.25)}
"""From which residual on, in mm, and which share of a moment's variance over the views that no object explains,
angles are plainly wrong. Good scans of seven phantoms leave 0.1 mm, a patient who moves 8 mm halfway 2.2 mm and
0.12 of the centre of mass, 0.4 mm and 0.01 of the width; shuffled angles 3 mm and more, and shares from 0.88."""


def moments(slices: MeasuredSlices) -> list[tuple[str, bool]]:
    """Sentences about mass, centre of mass and width of the views, and whether each is decisive."""
    views = _Views(slices)
    if len(views.angle) < _LEAST_VIEWS or float(views.mass.min()) <= 0:
        return []
    centre = _Fit(views.angle, views.centre, views.centre_noise, degree=1)
    width = _Fit(views.angle, views.width, views.width_noise, degree=2)
    found = [*(_wrong_angles(centre, width, views.mass_change) or _shifted(centre))]
    if views.mass_change > _LARGEST_MASS_CHANGE + 3 * views.mass_noise:
        sentence = (
            f"The mass of the object changes by {100 * views.mass_change:.0f} % from view to view: the beam's "
            "intensity is not corrected, or the object is truncated."
        )
        found.append((sentence, False))
    return found


def _wrong_angles(centre: _Fit, width: _Fit, mass_change: float) -> list[tuple[str, bool]]:
    fits = {"centre of mass": centre, "width": width}
    what, worst = max(fits.items(), key=lambda named: named[1].excess)
    if worst.excess <= _LARGEST_WOBBLE_MM:
        return []
    sentence = (
        f"The {what} of the projections does not change with the angle as that of one object would (by "
        f"{worst.residual:.1f} mm): the view angles are wrong or out of order, or the patient moved."
    )
    decisive = any(
        fit.excess > _DECISIVE[name][0] and fit.unexplained > _DECISIVE[name][1] for name, fit in fits.items()
    )
    return [(sentence, decisive and mass_change < _LARGEST_MASS_CHANGE_TO_REFUSE)]


def _shifted(centre: _Fit) -> list[tuple[str, bool]]:
    shift = float(np.median(centre.constant))
    if abs(shift) <= _LEAST_SHIFT_MM + 3 * centre.noise:
        return []
    sentence = (
        f"The projections fit a detector shifted by about {-shift:+.1f} mm better than the one described: its "
        "central element, or the axis of rotation, is wrong."
    )
    return [(sentence, False)]


class _Views:
    """Mass, centre of mass and root mean square width of every view [slice, view], mm, and their noise."""

    def __init__(self, slices: MeasuredSlices) -> None:
        data = slices.filled().astype(np.float64)
        weights = slices.weights.astype(np.float64)
        variance = np.divide(1, weights, out=np.zeros_like(weights), where=weights > 0)
        position = slices.geometry.detector_positions_mm().numpy()
        self.angle = np.array(slices.geometry.view_angles_rad)
        self.mass = data.sum(axis=-1)
        safe = np.where(self.mass > 0, self.mass, 1)
        self.centre = (data * position).sum(axis=-1) / safe
        self.centre_noise = np.sqrt((variance * (position - self.centre[..., None]) ** 2).sum(axis=-1)) / safe
        second = (data * position**2).sum(axis=-1) / safe
        # The second moment as a length: twice the usual width of the slice turns its changes into mm.
        usual = np.sqrt(np.maximum(second.mean(axis=-1, keepdims=True), 1e-9))
        self.width = second / (2 * usual)
        off = position**2 - second[..., None]
        self.width_noise = np.sqrt((variance * off**2).sum(axis=-1)) / safe / (2 * usual)
        self.mass_change = float(np.median(self.mass.std(axis=1) / safe.mean(axis=1)))
        self.mass_noise = float(np.sqrt(variance.sum(axis=-1)).mean() / safe.mean())


class _Fit:
    """A moment [slice, view] fitted by trigonometric polynomials of up to its degree, which a shifted detector
    keeps to as well. residual, noise: root mean squares, mm; excess: the residual beyond three times the noise;
    unexplained: of the variance over the views."""

    def __init__(self, angle: Numbers, values: Numbers, noise: Numbers, degree: int) -> None:
        waves = [np.ones_like(angle)]
        for n in range(1, degree + 1):
            waves += [np.cos(n * angle), np.sin(n * angle)]
        basis = np.stack(waves, axis=1)
        fitted = np.linalg.lstsq(basis, values.T, rcond=None)[0]
        self.constant = fitted[0]
        self.residual = float(np.sqrt(np.mean((values.T - basis @ fitted) ** 2)))
        self.noise = float(np.sqrt(np.mean(noise**2)))
        self.excess = self.residual - 3 * self.noise
        variance = float(np.mean(values.var(axis=1))) - self.noise**2
        self.unexplained = (self.residual**2 - self.noise**2) / variance if variance > 0 else 0.0
