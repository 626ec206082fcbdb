"""Operators by name. A new operator is one new file and one line in `OPERATORS`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from klip_engine.errors import UsageError
from klip_engine.operators.base import LinearOperator
from klip_engine.operators.blur import GaussianBlur
from klip_engine.operators.channelwise import Channelwise
from klip_engine.operators.ct import CTOperator
from klip_engine.operators.geometry import FanCurvedGeometry, FanFlatGeometry, ParallelGeometry
from klip_engine.operators.identity import Identity

SCANS: dict[str, Callable[..., LinearOperator]] = {
    "parallel": partial(CTOperator.for_grid, ParallelGeometry),
    "fan-flat": partial(CTOperator.for_grid, FanFlatGeometry),
    "fan-curved": partial(CTOperator.for_grid, FanCurvedGeometry),
}
"""Operators that measure line integrals."""

OPERATORS: dict[str, Callable[..., LinearOperator]] = {
    "identity": Identity.for_grid,
    "blur": GaussianBlur.for_grid,
    **SCANS,
}
"""All operators; those that are not scans measure values in the image's own unit."""


def build_operator(
    name: str,
    image_shape: tuple[int, int],
    spacing_mm: float,
    *,
    channels: int = 1,
    views: int | None = None,
    arc_deg: float | None = None,
    start_deg: float | None = None,
    **options: Any,
) -> LinearOperator:
    """The operator of that name for images of (rows, columns) with square pixels of `spacing_mm`.

    With several `channels` each is measured alone (`Channelwise`). `views`, `arc_deg` and `start_deg` are the CT
    scans'; whatever is None is left to the operator. Further options: those of `CTOperator.for_grid` and
    `GaussianBlur`.

    Raises `UsageError` for an unknown name or an option that the operator does not have.
    """
    if name not in OPERATORS:
        raise UsageError(f"Unknown operator {name!r}; it is one of {', '.join(OPERATORS)}.")
    scan = {"views": views, "arc_deg": arc_deg, "start_deg": start_deg}
    options |= {option: value for option, value in scan.items() if value is not None}
    try:
        operator = OPERATORS[name](image_shape, spacing_mm, **options)
    except TypeError as error:
        raise UsageError(f"The operator {name!r} cannot be built from these options: {error}.") from error
    return operator if channels == 1 else Channelwise(operator, channels)
