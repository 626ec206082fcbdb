"""Numbers in the words of the panel: rates, times, stages."""

from __future__ import annotations

from fractions import Fraction

from slicer.i18n import tr as _

from .lines import Progress


def rate_words(rate: float) -> str:
    """An accepted rate of false alarms as a reader of scans would say it."""
    share = Fraction(rate).limit_denominator(1000)
    if share == 0:
        return _("Nothing is marked on healthy slices, as far as can be told.")
    return _("On {some} of {all} healthy slices something is marked.").format(
        some=share.numerator, all=share.denominator
    )


def stage_words(stage: str) -> str:
    """What the engine is doing."""
    known = {
        "reading": _("Reading the scan"),
        "drawing healthy slices": _("Drawing healthy slices to compare with"),
        "calibrating": _("Learning what is usual under these settings (only the first time)"),
        "reconstructing": _("Reconstructing and scoring the slices"),
    }
    return known.get(stage, stage[:1].upper() + stage[1:])


def status_words(progress: Progress | None, elapsed_s: float, since_progress_s: float = 0.0) -> str:
    """The line under the progress bar.

    elapsed_s: since Apply; since_progress_s: how old `progress` is, so that the remaining time counts down.
    """
    elapsed = _("{time} elapsed").format(time=clock(elapsed_s))
    if progress is None:
        return " · ".join([_("Starting the engine"), elapsed])
    parts = [stage_words(progress.stage), elapsed]
    if progress.remaining_s is not None:
        left = max(progress.remaining_s - since_progress_s, 0.0)
        parts.append(_("about {time} left").format(time=clock(left)) if left >= 1 else _("almost there"))
    return " · ".join(parts)


def clock(seconds: float) -> str:
    """1:05 or 2:03:09."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def findings_words(count: int) -> str:
    """How much is marked."""
    if count == 0:
        return _("Nothing is marked at this rate of false alarms. That does not mean that nothing is there.")
    return _("1 suspicious region") if count == 1 else _("{count} suspicious regions").format(count=count)
