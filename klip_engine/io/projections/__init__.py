"""CT projection data from and to files, one file of code per format and direction."""

from klip_engine.io.projections.facts import facts
from klip_engine.io.projections.formats import (
    FORMATS,
    check_writable,
    find_format,
    read_projections,
    write_projections,
)
from klip_engine.io.projections.options import ReadOptions
from klip_engine.io.projections.picture import geometry_picture

__all__ = [
    "FORMATS",
    "ReadOptions",
    "check_writable",
    "facts",
    "find_format",
    "geometry_picture",
    "read_projections",
    "write_projections",
]
