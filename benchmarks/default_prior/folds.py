"""The patients of the default prior's training, dealt to folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from default_prior.make import write_tables

from klip_engine.io.sources import Source, read_manifest


@dataclass(frozen=True)
class Folds:
    """The training table and its sources; left_out: the patients of each fold; chosen: the folds to run."""

    table: Path
    sources: list[Source]
    left_out: list[set[str]]
    chosen: Sequence[int]


def deal_collection(ct: Path, folder: Path, folds: int, only: int | None) -> Folds:
    """Write the tables into the folder and deal the training patients; only: run one fold alone."""
    table, _ = write_tables(ct, folder / "tables")
    sources = read_manifest(table)
    return Folds(table, sources, deal(sources, folds), range(folds) if only is None else (only,))


def deal(sources: list[Source], folds: int) -> list[set[str]]:
    """Patients dealt to folds, those with whole scans first, so that each fold gets its share of them."""
    scans: dict[str, int] = {}
    for source in sources:
        wide = source.slices is None or sum(b - a for a, b in source.slices) > 3
        scans[source.patient] = scans.get(source.patient, 0) + (1000 if wide else 1)
    order = sorted(scans, key=lambda patient: (-scans[patient], patient))
    return [set(order[fold::folds]) for fold in range(folds)]
