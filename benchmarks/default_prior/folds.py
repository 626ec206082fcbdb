"""The patients of the default prior's training, dealt to folds."""

from __future__ import annotations

from klip_engine.io.sources import Source


def deal(sources: list[Source], folds: int) -> list[set[str]]:
    """Patients dealt to folds, those with whole scans first, so that each fold gets its share of them."""
    scans: dict[str, int] = {}
    for source in sources:
        wide = source.slices is None or sum(b - a for a, b in source.slices) > 3
        scans[source.patient] = scans.get(source.patient, 0) + (1000 if wide else 1)
    order = sorted(scans, key=lambda patient: (-scans[patient], patient))
    return [set(order[fold::folds]) for fold in range(folds)]
