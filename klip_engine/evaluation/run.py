"""Runs scores and methods of comparison over the slices of a study, batch by batch, so that it can be resumed.

Every finished batch is on the disk, in a work folder, before the next begins. A run is resumed only with the
same prior, settings, methods and slices.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from klip_engine.calibration import DRAWN, calibrate_scores, drawn_slices, healthy_key, known_null, user_cache
from klip_engine.errors import KlipError, UsageError
from klip_engine.evaluation.baselines.base import Baseline, Evidence
from klip_engine.evaluation.measures import SliceResult, measure_slice
from klip_engine.evaluation.study import HEALTHY, Study
from klip_engine.files import write_file
from klip_engine.pipeline import NULL_SLICES_ON_DEMAND
from klip_engine.priors import PriorBundle, ReferenceSlices, load_reference
from klip_engine.samplers import Measurement
from klip_engine.scoring.null import NullDistribution, find_null
from klip_engine.scoring.score_map import slice_maxima
from klip_engine.settings import SCORES, SCORING_VERSION, DetectionSettings, plain_data
from klip_engine.slices import NetworkMeter, Watch, scanner_and_sampler, score_images, score_map
from klip_engine.version import __version__
from klip_engine.volume import BoolArray, FloatArray, images_of_hu

WORK_SCHEMA = "klip-evaluation-work/1"
_STATE = "state.json"
_REFERENCE_NUMBER = 1_000_000
"""Reference slices count from here: their random numbers are not those of the study's slices."""
Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class RunSettings:
    """How a study is scored: reconstruction and device, the KLIP scores, and the slices that methods learn from."""

    detection: DetectionSettings
    scores: tuple[str, ...] = tuple(SCORES)
    reference_slices: int = 64

    def __post_init__(self) -> None:
        if not self.scores or len(set(self.scores)) != len(self.scores):
            raise UsageError("name at least one score, each once")
        if self.reference_slices < 4:
            raise UsageError("methods of comparison need at least four reference slices")
        for name in self.scores:
            self.scored_by(name)

    def scored_by(self, name: str) -> DetectionSettings:
        """The settings of `klip-engine detect` with this score; raises UsageError for one that does not fit."""
        if name == self.detection.score.name:
            return self.detection
        if name not in SCORES:
            raise UsageError(f"no score is called '{name}'; there are: {', '.join(SCORES)}")
        return replace(self.detection, score=SCORES[name])


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
    """results[method][slice number]; batches: where the maps of each slice are (`load_maps`)."""

    methods: tuple[Method, ...]
    results: dict[str, tuple[SliceResult, ...]]
    work: Path
    batch_slices: int
    timing: dict[str, Any]
    known_slices: int = 0
    """Healthy slices of the study that are also reference slices: their p-values say nothing."""

    def load_maps(self, number: int, method: str) -> tuple[FloatArray, FloatArray]:
        """Reconstruction in HU and score map [h, w] of one slice."""
        first = number - number % self.batch_slices
        batch = _stored(self.work / f"batch-{first:06d}.npz")
        return 1000 * batch["reconstruction"][number - first], batch[f"maps:{method}"][number - first]


@dataclass(frozen=True)
class KlipMaps:
    """maps[score]: [n, h, w]; reconstruction: posterior mean [n, 1, h, w], HU / 1000, and what it was made from."""

    maps: dict[str, FloatArray]
    reconstruction: torch.Tensor
    measurement: Measurement


@torch.no_grad()
def klip_maps(
    hu: FloatArray,
    numbers: Sequence[int],
    bundle: PriorBundle,
    settings: DetectionSettings,
    nulls: Mapping[str, NullDistribution],
    meter: NetworkMeter,
    device: str,
) -> KlipMaps:
    """The score maps that `detect` makes, for several scores from the same posterior samples, one batch.

    hu: slices [n, h, w] on the prior's grid; numbers: of the slices, random numbers depend on them and the seed;
    nulls: by the name of each wanted score. Raises KlipError when the reconstruction does not stay finite.
    """
    images = images_of_hu(hu)
    scores = {name: RunSettings(settings, (name,)).scored_by(name).score for name in nulls}
    scored = score_images(
        images, bundle, settings, device, meter, None, scores=list(scores.values()), numbers=numbers
    )
    densities = scored.density.split([len(score.terms) for score in scores.values()], dim=1)
    maps = {}
    for density, (name, null) in zip(densities, nulls.items(), strict=True):
        maps[name] = score_map(density, scored.reconstruction, scores[name], bundle, null.scales)
        if not np.isfinite(maps[name]).all():
            raise KlipError("the reconstruction did not stay finite; the prior or the settings are at fault")
    scanner, _ = scanner_and_sampler(bundle, settings)
    measurement = scanner.measure(torch.from_numpy(images).to(device), numbers)
    return KlipMaps(maps, scored.reconstruction.to(device), measurement)


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
    state = _state(study, bundle, settings, baselines, reference, facts or {})
    _open_work(work, state, resume)
    run = _Run(bundle, settings, device, work, meter)
    nulls = run.nulls()
    fitted, baseline_nulls = run.fit(baselines, reference, nulls) if baselines else ({}, {})
    batch_slices = settings.detection.batch_slices
    results: dict[str, list[SliceResult]] = {name: [] for name in (*nulls, *fitted)}
    methods = _methods(settings, bundle, nulls, fitted, baseline_nulls)
    scores: dict[str, list[float]] = {method.name: [] for method in methods}
    for first in range(0, len(study), batch_slices):
        watch.check()
        numbers = range(first, min(first + batch_slices, len(study)))
        batch = run.batch(f"batch-{first:06d}.npz", study.hu[first : numbers.stop],
                          study.body[first : numbers.stop], numbers, nulls, fitted)  # fmt: skip
        for name, found in scores.items():
            found += [float(score) for score in batch[f"slices:{name}"]]
        watch.tell("evaluating slices", numbers.stop, len(study))
    adapted = {name: _adapted(null, study, scores[name]) for name, null in nulls.items()}
    for first in range(0, len(study), batch_slices):
        batch = _stored(work / f"batch-{first:06d}.npz")
        for method in methods:
            for place, one in enumerate(batch[f"maps:{method.name}"]):
                case, score = study.cases[first + place], scores[method.name][first + place]
                null = adapted[method.name][case.file] if method.name in nulls else baseline_nulls[method.name]
                results[method.name].append(
                    measure_slice(
                        one,
                        score,
                        null.p_value(score),
                        study.body[first + place],
                        study.lesion[first + place],
                        method.block,
                        bundle.ct_grid.pixel_mm,
                    )
                )
    timing = {"network_s": round(meter.seconds, 3), "network_evaluations": meter.evaluations}
    kept = {name: tuple(values) for name, values in results.items()}
    return Outcome(methods, kept, work, batch_slices, timing, _in_both(study, kept_reference))


def _adapted(null: NullDistribution, study: Study, scores: Sequence[float]) -> dict[str, NullDistribution]:
    """The null of each scan, by its file, as `detect` adapts it to the scan's level, here to its healthy slices."""
    healthy: dict[str, list[float]] = {case.file: [] for case in study.cases}
    for case, score in zip(study.cases, scores, strict=True):
        if case.kind == HEALTHY:
            healthy[case.file].append(score)
    return {file: null.adapted_to(found) for file, found in healthy.items()}


@dataclass(frozen=True)
class _Run:
    """What all batches share."""

    bundle: PriorBundle
    settings: RunSettings
    device: str
    work: Path
    meter: NetworkMeter

    def nulls(self) -> dict[str, NullDistribution]:
        """The null distribution that `detect` uses, for every score; measured now where none is known."""
        wanted = {name: self.settings.scored_by(name) for name in self.settings.scores}
        healthy = healthy_key(self.bundle)
        known = {
            name: find_null(self.work, settings.null_settings(self.bundle.sha256, healthy))
            or known_null(self.bundle, settings)
            for name, settings in wanted.items()
        }
        missing = [name for name, null in known.items() if null is None]
        if missing:
            made = calibrate_scores(
                self.bundle,
                self.settings.detection,
                [wanted[name].score for name in missing],
                self.device,
                count=NULL_SLICES_ON_DEMAND,
                watch=self.meter.watch,
            )
            for null in made:
                with contextlib.suppress(KlipError):  # the cache only saves time
                    null.save(user_cache() / "null")
            known |= dict(zip(missing, made, strict=True))
        nulls = {name: null for name, null in known.items() if null is not None}
        for null in nulls.values():
            null.save(self.work)  # a resumed run goes on with the same ones, whatever is calibrated meanwhile
        return nulls

    def fit(
        self,
        baselines: Mapping[str, Baseline],
        reference: ReferenceSlices | None,
        nulls: Mapping[str, NullDistribution],
    ) -> tuple[dict[str, Baseline], dict[str, NullDistribution]]:
        """Methods after looking at every other reference scan, and what they score on the rest of them."""
        reference = reference or self._drawn()
        hu, body = reference.hu, reference.body
        scans = np.unique(reference.scan)
        first_half = np.isin(reference.scan, scans[::2]) if len(scans) > 1 else np.arange(len(hu)) % 2 == 0
        if min(first_half.sum(), (~first_half).sum()) < 2:
            raise UsageError(f"{len(hu)} reference slices are too few to learn from; give more with --reference")
        evidence = []
        step = self.settings.detection.batch_slices
        for parity, half in enumerate((first_half, ~first_half)):
            places = np.flatnonzero(half)
            parts = []
            for first in range(0, len(places), step):
                self.meter.watch.check()
                chosen = places[first : first + step]
                numbers = [_REFERENCE_NUMBER + int(place) for place in chosen]
                name = f"reference-{parity}-{first:06d}.npz"
                batch = self.batch(name, hu[chosen], body[chosen], numbers, nulls, {})
                parts.append(self._evidence(hu[chosen], body[chosen], numbers, batch["reconstruction"]))
                self.meter.watch.tell(
                    "reference slices", parity * (len(hu) + 1) // 2 + first + len(chosen), len(hu)
                )
            evidence.append(_joined(parts))
        fitted, scored = {}, {}
        seed = self.settings.detection.seed
        for name, baseline in baselines.items():
            self.meter.watch.check()
            fitted[name] = baseline.fitted(self.meter, evidence[0], seed)
            rest = [fitted[name].score(self.meter, part, seed).slices.cpu() for part in evidence[1].batches(step)]
            maxima = torch.cat(rest).numpy()
            scored[name] = NullDistribution(tuple(sorted(float(v) for v in maxima)), (), {})
            self.meter.watch.tell("fitting methods of comparison", len(fitted), len(baselines))
        return fitted, scored

    def _drawn(self) -> ReferenceSlices:
        stored = _load(self.work / "drawn.npz")
        if stored is None:
            detection, count = self.settings.detection, self.settings.reference_slices
            drawn = drawn_slices(self.bundle, count, detection, self.device, self.meter)
            stored = {"hu": drawn.hu, "body": drawn.body}
            _save(self.work / "drawn.npz", stored)
        seen = stored["body"].any(axis=(1, 2))
        if seen.sum() < 4:
            raise KlipError("the slices drawn from the prior show no body; give healthy scans with --reference")
        return ReferenceSlices(stored["hu"][seen], stored["body"][seen], np.flatnonzero(seen))

    def batch(
        self,
        name: str,
        hu: FloatArray,
        body: BoolArray,
        numbers: Sequence[int],
        nulls: Mapping[str, NullDistribution],
        fitted: Mapping[str, Baseline],
    ) -> Batch:
        """One batch from the work folder, or else computed and kept there."""
        stored = _load(self.work / name)
        if stored is not None:
            return stored
        detection = self.settings.detection
        made = klip_maps(hu, numbers, self.bundle, detection, nulls, self.meter, self.device)
        reconstruction = made.reconstruction[:, 0].float().cpu().numpy()
        batch: Batch = {"reconstruction": reconstruction}
        for score, maps in made.maps.items():
            batch[f"maps:{score}"] = maps
            batch[f"slices:{score}"] = slice_maxima(maps, body)
        evidence = Evidence(
            made.reconstruction, made.measurement, torch.from_numpy(body).to(self.device), tuple(numbers)
        )
        for method, baseline in fitted.items():
            scores = baseline.score(self.meter, evidence, detection.seed)
            batch[f"maps:{method}"] = scores.maps.float().cpu().numpy()
            batch[f"slices:{method}"] = scores.slices.float().cpu().numpy()
            if not all(np.isfinite(batch[f"{part}:{method}"]).all() for part in ("maps", "slices")):
                raise KlipError(f"the method '{method}' gave scores that are not finite")
        _save(self.work / name, batch)
        return batch

    def _evidence(
        self, hu: FloatArray, body: BoolArray, numbers: Sequence[int], reconstruction: np.ndarray
    ) -> Evidence:
        scanner, _ = scanner_and_sampler(self.bundle, self.settings.detection)
        images = torch.from_numpy((hu / 1000).clip(-1, 1).astype(np.float32))[:, None].to(self.device)
        return Evidence(
            torch.from_numpy(reconstruction)[:, None].to(self.device),
            scanner.measure(images, numbers),
            torch.from_numpy(body).to(self.device),
            tuple(numbers),
        )


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


def _in_both(study: Study, reference: ReferenceSlices | None) -> int:
    """How many healthy slices of the study are reference slices too."""
    if reference is None:
        return 0
    known = {one.round().astype(np.int16).tobytes() for one in reference.hu}
    healthy = (hu for hu, case in zip(study.hu, study.cases, strict=True) if case.lesion is None)
    return sum(one.round().clip(-1024, 3071).astype(np.int16).tobytes() in known for one in healthy)


def _methods(
    settings: RunSettings,
    bundle: PriorBundle,
    nulls: Mapping[str, NullDistribution],
    fitted: Mapping[str, Baseline],
    baseline_nulls: Mapping[str, NullDistribution],
) -> tuple[Method, ...]:
    ours = [
        Method(
            name,
            "Kheirandish, Hong and Fridovich-Keil, arXiv 2605.31596",
            min(settings.scored_by(name).score.blocks(bundle.ct_grid.pixel_mm)),
            {"from": nulls[name].source or "slices without anomaly"} | nulls[name].identity(),
        )
        for name in settings.scores
    ]
    others = [Method(name, one.source, 1, _reference_null(baseline_nulls[name])) for name, one in fitted.items()]
    return (*ours, *others)


def _reference_null(null: NullDistribution) -> dict[str, Any]:
    return {"from": f"{len(null.maxima)} reference slices", "slices": len(null.maxima)}


def _state(
    study: Study,
    bundle: PriorBundle,
    settings: RunSettings,
    baselines: Mapping[str, Baseline],
    reference: ReferenceSlices | None,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that the stored batches depend on, as plain data."""
    learnt = DRAWN if reference is None else reference.digest()
    state = {
        "schema": WORK_SCHEMA,
        "prior": bundle.identity(),
        "slices": study.digest(),
        "detection": settings.detection.to_dict(),
        "scores": {name: asdict(settings.scored_by(name).score) for name in settings.scores},
        "scoring": SCORING_VERSION,
        "engine": __version__,
        "baselines": {name: repr(baseline) for name, baseline in baselines.items()},
        "reference slices": [settings.reference_slices, learnt],
        **facts,
    }
    plain = plain_data(state)
    assert isinstance(plain, dict)
    return plain


def check_work(work: Path, resume: bool) -> None:
    """Raise UsageError when the work folder is not free to be used. Worth asking before anything long begins."""
    if work.exists() and not work.is_dir():
        raise UsageError(f"{work} is a file; move it away: the work folder goes there")
    if not work.exists() or not any(work.iterdir()):
        return
    if not (work / _STATE).is_file():
        raise UsageError(f"{work} holds something else than a run of this program; move it away")
    if not resume:
        raise UsageError(f"{work} holds an earlier run: --resume continues it; or delete that folder to start anew")


def _open_work(work: Path, state: dict[str, Any], resume: bool) -> None:
    check_work(work, resume)
    if (work / _STATE).is_file():
        try:
            earlier = json.loads((work / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{work / _STATE} is damaged: delete {work} to start anew") from error
        changed = [key for key in sorted({*state, *earlier}) if state.get(key) != earlier.get(key)]
        if changed:
            raise UsageError(
                f"{work} was made with another value of: {', '.join(changed)}; give the same settings to resume, "
                "or delete that folder to start anew"
            )
        return
    try:
        work.mkdir(parents=True, exist_ok=True)
        write_file(work / _STATE, (json.dumps(state, indent=1) + "\n").encode())
    except OSError as error:
        raise UsageError(f"{work} cannot be written: {error.strerror or error}; choose another --json") from error


def _save(path: Path, batch: Batch) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, **batch)  # type: ignore[arg-type]
    write_file(path, stream.getvalue())


def _stored(path: Path) -> Batch:
    """A batch that was kept; raises UsageError when it is gone."""
    batch = _load(path)
    if batch is None:
        raise UsageError(f"{path} is gone: --resume computes it again")
    return batch


def _load(path: Path) -> Batch | None:
    """A stored batch; None where there is none. Raises UsageError for a damaged one."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception as error:
        raise UsageError(f"{path} is damaged: delete it, and --resume computes it again") from error
