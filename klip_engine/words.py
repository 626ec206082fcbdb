"""Numbers in sentences."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """The number with its noun: "1 region", "2 regions"; for nouns whose plural ends in s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def slices_from_to(first: int, last: int) -> str:
    """A range of slices, both ends included: "slice 4", "slices 4-6"."""
    return f"{'slice' if first == last else 'slices'} {range_text(first, last)}"


def range_text(first: int, last: int) -> str:
    """A range without its noun, both ends included: "4", "4-6"."""
    return str(first) if first == last else f"{first}-{last}"


def install_extra(extra: str) -> str:
    """How the packages of an optional extra come in."""
    return (
        f"install the engine with its extra '{extra}' (in a checkout: pip install -c constraints.txt '.[{extra}]')"
    )
