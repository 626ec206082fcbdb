"""How large a simulated scan may be: what would fill the memory is refused before it is begun."""

from __future__ import annotations

from klip_engine.errors import UsageError

MOST_VALUES = 1_000_000_000
"""Of 4 bytes; a few arrays of this size are held at a time."""


def refuse_what_has_no_room(what: str, values: float, cure: str) -> None:
    """Raise UsageError where `what` would have more values than `MOST_VALUES`."""
    if values > MOST_VALUES:
        raise UsageError(
            f"{what} would have {values:.3g} values, more than the {MOST_VALUES:.0e} that are simulated: {cure}"
        )
