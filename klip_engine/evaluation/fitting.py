"""Methods of comparison learn from one half of the reference slices; what they score on the other is their null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from klip_engine.drawing import drawn_slices
from klip_engine.errors import KlipError, UsageError
from klip_engine.evaluation.baselines.base import Baseline, Evidence
from klip_engine.evaluation.batches import Batches, Usual
from klip_engine.evaluation.work import load_batch, save_batch
from klip_engine.priors import ReferenceSlices
from klip_engine.samplers import Measurement
from klip_engine.scoring.null import NullDistribution

_REFERENCE_NUMBER = 1_000_000
"""Reference slices count from here: their random numbers are not those of the study's slices."""


def fitted_baselines(
    batches: Batches,
    baselines: Mapping[str, Baseline],
    reference: ReferenceSlices | None,
    nulls: Mapping[str, Usual],
) -> tuple[dict[str, Baseline], dict[str, NullDistribution]]:
    """Methods after looking at every other reference scan, and what they score on the rest of them."""
    reference = reference or _drawn(batches)
    hu, body = reference.hu, reference.body
    scans = np.unique(reference.scan)
    first_half = np.isin(reference.scan, scans[::2]) if len(scans) > 1 else np.arange(len(hu)) % 2 == 0
    if min(first_half.sum(), (~first_half).sum()) < 2:
        raise UsageError(f"{len(hu)} reference slices are too few to learn from; give more with --reference")
    evidence = []
    step = batches.settings.detection.batch_slices
    for parity, half in enumerate((first_half, ~first_half)):
        places = np.flatnonzero(half)
        parts = []
        for first in range(0, len(places), step):
            batches.meter.watch.check()
            chosen = places[first : first + step]
            numbers = [_REFERENCE_NUMBER + int(place) for place in chosen]
            name = f"reference-{parity}-{first:06d}.npz"
            batch = batches.scored(name, hu[chosen], body[chosen], numbers, nulls, {})
            parts.append(batches.evidence(hu[chosen], body[chosen], numbers, batch["reconstruction"]))
            batches.meter.watch.tell("reference slices", parity * (len(hu) + 1) // 2 + first + len(chosen), len(hu))
        evidence.append(_joined(parts))
    fitted, scored = {}, {}
    seed = batches.settings.detection.seed
    for name, baseline in baselines.items():
        batches.meter.watch.check()
        fitted[name] = baseline.fitted(batches.meter, evidence[0], seed)
        rest = [fitted[name].score(batches.meter, part, seed).slices.cpu() for part in evidence[1].batches(step)]
        maxima = torch.cat(rest).numpy()
        scored[name] = NullDistribution(tuple(sorted(float(v) for v in maxima)), (), {})
        batches.meter.watch.tell("fitting methods of comparison", len(fitted), len(baselines))
    return fitted, scored


def _drawn(batches: Batches) -> ReferenceSlices:
    stored = load_batch(batches.work / "drawn.npz")
    if stored is None:
        detection, count = batches.settings.detection, batches.settings.reference_slices
        drawn = drawn_slices(batches.bundle, count, detection, batches.device, batches.meter)
        stored = {"hu": drawn.hu, "body": drawn.body}
        save_batch(batches.work / "drawn.npz", stored)
    seen = stored["body"].any(axis=(1, 2))
    if seen.sum() < 4:
        raise KlipError("the slices drawn from the prior show no body; give healthy scans with --reference")
    numbers = np.flatnonzero(seen)
    return ReferenceSlices(stored["hu"][seen], stored["body"][seen], numbers, numbers)


def _joined(parts: Sequence[Evidence]) -> Evidence:
    first = parts[0].measurement
    variance = first.variance
    if isinstance(variance, torch.Tensor) and variance.ndim > 0:
        variance = torch.cat([torch.as_tensor(part.measurement.variance) for part in parts])
    return Evidence(
        torch.cat([part.reconstruction for part in parts]),
        Measurement(first.operator, torch.cat([part.measurement.data for part in parts]), variance),
        torch.cat([part.body for part in parts]),
        tuple(number for part in parts for number in part.numbers),
    )
