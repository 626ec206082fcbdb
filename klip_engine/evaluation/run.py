"""Runs scores and methods of comparison over the slices of a study, batch by batch, so that it can be resumed.

Every finished batch is on the disk, in a work folder, before the next begins. A run is resumed only with the
same prior, settings, methods and slices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from klip_engine.calibration import calibrate_scores, healthy_key, known_null, usable_variants, user_cache
from klip_engine.errors import KlipError
from klip_engine.evaluation.baselines.base import Baseline
from klip_engine.evaluation.batches import Batches, Usual
from klip_engine.evaluation.fitting import fitted_baselines
from klip_engine.evaluation.measures import SliceResult, measure_slice
from klip_engine.evaluation.run_settings import RunSettings
from klip_engine.evaluation.study import HEALTHY, Study
from klip_engine.evaluation.work import open_work, stored_batch, work_state
from klip_engine.pipeline import NULL_SLICES_ON_DEMAND
from klip_engine.priors import PriorBundle, ReferenceSlices, load_reference, whole_hu
from klip_engine.scoring.null import NullDistribution, find_null
from klip_engine.settings import ScoreSettings
from klip_engine.slices import NetworkMeter, Watch
from klip_engine.volume import FloatArray

_PAPER = "Kheirandish, Hong and Fridovich-Keil, arXiv 2605.31596"
_PUBLISHED = ("klip", "kl")
"""Scores that are the paper's own."""


@dataclass(frozen=True)
class Method:
    """One column of the comparison; block: side in pixels of the blocks its map is made of; null: where its
    p-values come from."""

    name: str
    source: str
    block: int
    null: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """results[method][slice number]; batches: numbers of the slices whose maps lie together (`load_maps`)."""

    methods: tuple[Method, ...]
    results: dict[str, tuple[SliceResult, ...]]
    work: Path
    batches: tuple[range, ...]
    timing: dict[str, Any]
    known_slices: int = 0
    """Healthy slices of the study that are also reference slices: their p-values say nothing."""

    def load_maps(self, number: int, method: str) -> tuple[FloatArray, FloatArray]:
        """Reconstruction in HU and score map [h, w] of one slice."""
        numbers = next(batch for batch in self.batches if number in batch)
        batch, place = stored_batch(self.work / _file(numbers)), numbers.index(number)
        return 1000 * batch["reconstruction"][place], batch[f"maps:{method}"][place]


def run_study(
    study: Study,
    bundle: PriorBundle,
    settings: RunSettings,
    baselines: Mapping[str, Baseline],
    work: Path,
    *,
    device: str,
    reference: ReferenceSlices | None = None,
    resume: bool = False,
    watch: Watch | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Outcome:
    """Score every slice of the study by every method and measure the scores against the truth.

    reference: healthy slices that methods of comparison learn from; by default
    those kept beside the prior, drawn from it where there are none. facts: what else must agree for a run to be
    resumed. Raises UsageError when `work` holds a run and `resume` is not asked for, or one of other settings.
    """
    watch = watch or Watch()
    meter = NetworkMeter(bundle.on(device).denoiser, watch)
    kept_reference = load_reference(bundle.folder, bundle.ct_grid.shape)
    reference = reference or kept_reference
    if reference is not None:
        reference = reference.evenly(settings.reference_slices)
    state = work_state(study, bundle, settings, baselines, reference, facts or {})
    open_work(work, state, resume)
    batches = Batches(bundle, settings, device, work, meter)
    nulls = _nulls(batches)
    fitted, baseline_nulls = fitted_baselines(batches, baselines, reference, nulls) if baselines else ({}, {})
    results: dict[str, list[SliceResult]] = {name: [] for name in (*nulls, *fitted)}
    described = {name: _null_of(usual, study) for name, usual in nulls.items()}
    methods = _methods(settings, bundle, described, fitted, baseline_nulls)
    scores: dict[str, list[float]] = {method.name: [] for method in methods}
    parts = study.batches(settings.detection.batch_slices)
    for numbers in parts:
        watch.check()
        hu, body, around = study.hu[numbers], study.body[numbers], study.around[numbers]
        batch = batches.scored(_file(numbers), hu, body, numbers, nulls, fitted, around)
        for name, found in scores.items():
            found += [float(score) for score in batch[f"slices:{name}"]]
        watch.tell("evaluating slices", numbers.stop, len(study))
    accompanied = study.accompanied
    adapted = {name: _adapted(usual, study, scores[name]) for name, usual in nulls.items()}
    for numbers in parts:
        batch = stored_batch(work / _file(numbers))
        for method in methods:
            for number, one in zip(numbers, batch[f"maps:{method.name}"], strict=True):
                case, score = study.cases[number], scores[method.name][number]
                if method.name in nulls:
                    null = adapted[method.name][case.file, bool(accompanied[number])]
                else:
                    null = baseline_nulls[method.name]
                results[method.name].append(
                    measure_slice(
                        one,
                        score,
                        null.p_value(score),
                        study.body[number],
                        study.lesion[number],
                        method.block,
                        bundle.ct_grid.pixel_mm,
                    )
                )
    timing = {"network_s": round(meter.seconds, 3), "network_evaluations": meter.evaluations}
    kept = {name: tuple(values) for name, values in results.items()}
    return Outcome(methods, kept, work, parts, timing, _in_both(study, kept_reference))


def _file(numbers: range) -> str:
    """Of a batch in the work folder."""
    return f"batch-{numbers.start:06d}.npz"


def _adapted(usual: Usual, study: Study, scores: Sequence[float]) -> dict[tuple[str, bool], NullDistribution]:
    """The null of each scan, by its file and whether slices have neighbours, as `detect` adapts it to the scan's
    level, here to its healthy slices."""
    told_apart = usual.among is not None
    healthy: dict[tuple[str, bool], list[float]] = {}
    for case, score, accompanied in zip(study.cases, scores, study.accompanied, strict=True):
        for among in (True, False):
            found = healthy.setdefault((case.file, among), [])
            if case.kind == HEALTHY and (accompanied == among or not told_apart):
                found.append(score)
    return {(file, among): usual.of(among).adapted_to(found) for (file, among), found in healthy.items()}


def _nulls(batches: Batches) -> dict[str, Usual]:
    """The null distributions that `detect` uses, for every score; measured now where none is known."""
    wanted = {
        (name, score.neighbours): score
        for name in batches.settings.scores
        for score in usable_variants(batches.settings.scored_by(name).score, batches.bundle)
    }
    known = {key: _known(batches, score) for key, score in wanted.items()}
    for neighbours in (True, False):
        missing = [key for key, null in known.items() if null is None and key[1] == neighbours]
        if missing:
            known |= dict(zip(missing, _made(batches, [wanted[key] for key in missing]), strict=True))
    nulls = {key: null for key, null in known.items() if null is not None}
    for null in nulls.values():
        null.save(batches.work)  # a resumed run goes on with the same ones, whatever is calibrated meanwhile
    return {name: Usual(nulls[name, False], nulls.get((name, True))) for name in batches.settings.scores}


def _known(batches: Batches, score: ScoreSettings) -> NullDistribution | None:
    """Of this run, else the one that `detect` would take."""
    settings = replace(batches.settings.detection, score=score)
    wanted = settings.null_settings(batches.bundle.sha256, healthy_key(batches.bundle))
    return find_null(batches.work, wanted) or known_null(batches.bundle, settings)


def _made(batches: Batches, scores: Sequence[ScoreSettings]) -> list[NullDistribution]:
    """Measured now, and kept for later runs."""
    made = calibrate_scores(
        batches.bundle,
        batches.settings.detection,
        scores,
        batches.device,
        count=NULL_SLICES_ON_DEMAND,
        watch=batches.meter.watch,
    )
    for null in made:
        with contextlib.suppress(KlipError):  # the cache only saves time
            null.save(user_cache() / "null")
    return made


def _in_both(study: Study, reference: ReferenceSlices | None) -> int:
    """How many healthy slices of the study are reference slices too."""
    if reference is None:
        return 0
    known = {one.astype(np.int16).tobytes() for one in whole_hu(reference.hu)}
    healthy = (hu for hu, case in zip(study.hu, study.cases, strict=True) if case.kind == HEALTHY)
    return sum(whole_hu(one).astype(np.int16).tobytes() in known for one in healthy)


def _methods(
    settings: RunSettings,
    bundle: PriorBundle,
    nulls: Mapping[str, dict[str, Any]],
    fitted: Mapping[str, Baseline],
    baseline_nulls: Mapping[str, NullDistribution],
) -> tuple[Method, ...]:
    ours = [
        Method(
            name,
            _PAPER if name in _PUBLISHED else f"this project, after {_PAPER}",
            min(settings.scored_by(name).score.blocks(bundle.ct_grid.pixel_mm)),
            nulls[name],
        )
        for name in settings.scores
    ]
    others = [Method(name, one.source, 1, _reference_null(baseline_nulls[name])) for name, one in fitted.items()]
    return (*ours, *others)


def _null_of(usual: Usual, study: Study) -> dict[str, Any]:
    """Where p-values come from; "alone": where those of slices without neighbours do, in a study that has both."""

    def described(null: NullDistribution) -> dict[str, Any]:
        return {"from": null.source or "slices without anomaly"} | null.identity()

    accompanied = study.accompanied
    found = described(usual.of(bool(accompanied.any())))
    if usual.among is not None and accompanied.any() and not accompanied.all():
        found["alone"] = described(usual.alone)
    return found


def _reference_null(null: NullDistribution) -> dict[str, Any]:
    return {"from": f"{len(null.maxima)} reference slices", "slices": len(null.maxima)}
