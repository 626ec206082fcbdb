"""Durations, moments and sizes in words, for people."""

from __future__ import annotations

from datetime import datetime

from klip_engine.words import counted


def duration(seconds: float) -> str:
    """The largest unit that fits: "45 s", "3 min", "5 h", "2 days"."""
    for size, unit in ((86400.0, "day"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            number = int(seconds // size)
            return counted(number, unit) if unit == "day" else f"{number} {unit}"
    return f"{max(0, int(seconds))} s"


def ago(moment: float, now: float) -> str:
    """How long a moment is past: "just now", "3 min ago"."""
    return "just now" if now - moment < 5 else f"{duration(now - moment)} ago"


def clock_time(moment: float) -> str:
    """A moment in the computer's own time zone: "2026-01-02 10:15:03 UTC"."""
    return datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def size(count: float) -> str:
    """Bytes: "512 kB", "3.2 GB", in powers of 1000."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return f"{count / 1e3:.0f} kB"
