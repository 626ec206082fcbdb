"""The published tuning of window and block, on healthy slices and star artefacts only (arXiv 2605.31596).

Nothing but stars is looked at: a lesion that a score was tuned on is no test of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from klip_engine.errors import KlipError, UsageError, resource_errors
from klip_engine.evaluation.study import HEALTHY, Study, StudySettings, collect_study
from klip_engine.files import writable_folder, write_file
from klip_engine.io.sources import Source
from klip_engine.pipeline import pick_device
from klip_engine.priors import PriorBundle, load_prior
from klip_engine.scoring.klip import ScoreTerm, Weighting, Window, block_means
from klip_engine.scoring.metrics import auroc, image_level_auroc, touching_blocks
from klip_engine.settings import DetectionSettings, ScoreSettings, plain_data
from klip_engine.slices import NetworkMeter, Watch, scanner_and_sampler, score_slices
from klip_engine.working_grid import images_of_hu

SCHEMA = "klip-tuning/1"
TUNING_KIND = "star"
WINDOW_EDGES = 10
"""Windows run between any two of so many noise levels, evenly chosen among those sampled."""
BLOCK_PIXELS = (1, 3, 5, 9)
COHERENCE_PIXELS = (1.0, 1.5, 2.2)


@dataclass(frozen=True)
class Candidate:
    """One setting of the score and how well it finds stars; image_auroc and dataset_auroc as in `measures`."""

    term: ScoreTerm
    block_pixels: int
    image_auroc: float
    dataset_auroc: float

    @property
    def both(self) -> float:
        """Mean of image and dataset level, by which the setting to use is chosen."""
        return (self.image_auroc + self.dataset_auroc) / 2

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        plain = plain_data(asdict(self))
        assert isinstance(plain, dict)
        return plain


@dataclass(frozen=True)
class TuningJob:
    """Healthy scans in; a settings file and the record of all that was tried out.

    weighting: one of `Weighting`, or "all"; out: file for the settings; json_file: for the record, by default
    NAME-tuning.json beside it.
    """

    scans: tuple[Source, ...]
    out: Path
    json_file: Path | None
    weighting: str
    count: int
    healthy_slices: int
    settings: DetectionSettings
    prior: str | Path | PriorBundle = "default"

    def __post_init__(self) -> None:
        if self.weighting != "all" and self.weighting not in get_args(Weighting):
            choices = ", ".join((*get_args(Weighting), "all"))
            raise UsageError(f"no weighting is called '{self.weighting}'; there are: {choices}")
        for path in (self.out, self.record):
            if path.suffix.lower() != ".json" or path.is_dir():
                raise UsageError(f"name a .json file to write, not {path}")
        if self.out.resolve() == self.record.resolve():
            raise UsageError("settings and record need two files")

    @property
    def record(self) -> Path:
        """Where all that was tried is written."""
        return self.json_file or self.out.with_name(f"{self.out.stem}-tuning.json")

    @property
    def weightings(self) -> tuple[Weighting, ...]:
        """What is tried."""
        return tuple(one for one in get_args(Weighting) if self.weighting in (one, "all"))


def run_tuning(
    job: TuningJob,
    progress: Callable[[str, int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Candidate:
    """Insert stars, try every window and block, write both files (each complete or not at all), return the best."""
    watch = Watch(progress, cancelled)
    writable_folder(job.out.parent)
    writable_folder(job.record.parent)
    with resource_errors():
        device = pick_device(job.settings.device)
        bundle = job.prior.on(device) if isinstance(job.prior, PriorBundle) else load_prior(job.prior, device)
        scanner_and_sampler(bundle, job.settings)
        study = collect_study(
            job.scans,
            bundle.ct_grid,
            StudySettings((TUNING_KIND,), job.count, job.healthy_slices, job.settings.seed, matched=False),
            progress=lambda done, total: watch.tell("inserting stars", done, total),
            check=watch.check,
        )
        candidates = tune(study, bundle, job.settings, job.weightings, device=device, watch=watch)
    best = candidates[0]
    settings = tuned_settings(job.settings, best, bundle.ct_grid.pixel_mm).to_dict()
    _write(job.record, tuning_document(candidates, study, job.settings, bundle.identity()))
    _write(job.out, {"settings": settings})
    return best


def _write(path: Path, document: dict[str, Any]) -> None:
    write_file(path, (json.dumps(document, indent=1) + "\n").encode())


@dataclass(frozen=True)
class _Family:
    """A weighting with its neighbourhood, and the blocks that make sense with it."""

    weighting: Weighting
    coherence_pixels: float
    blocks: tuple[int, ...]


def families(weightings: Sequence[Weighting]) -> list[_Family]:
    """What is tried for each weighting: blocks for squared pulls, neighbourhoods for coherent ones."""
    found = []
    for weighting in weightings:
        if weighting not in ("plain", "variance"):
            found += [_Family(weighting, size, (1,)) for size in COHERENCE_PIXELS]
        else:
            found.append(_Family(weighting, ScoreTerm.coherence_pixels, BLOCK_PIXELS))
    return found


def tune(
    study: Study,
    bundle: PriorBundle,
    settings: DetectionSettings,
    weightings: Sequence[Weighting],
    *,
    device: str,
    watch: Watch | None = None,
) -> list[Candidate]:
    """Measure every window and block on a study of stars; best first by `Candidate.both`.

    All candidates come from the same posterior samples. Raises UsageError when the study holds another kind of
    lesion than stars or lacks healthy slices, KlipError when the reconstruction does not stay finite.
    """
    kinds = {case.kind for case in study.cases}
    if kinds != {HEALTHY, TUNING_KIND}:
        raise UsageError(f"tuning looks at healthy slices and stars only, not at {', '.join(sorted(kinds))}")
    watch = watch or Watch()
    scanner, sampler = scanner_and_sampler(bundle, settings)
    edges = _edges(sampler.levels)
    tried = families(weightings)
    cells: list[Window] = [(low, high) for high, low in pairwise(edges)]
    terms = [ScoreTerm(cell, one.weighting, one.coherence_pixels) for one in tried for cell in cells]
    tables = _Tables(tried, len(edges))
    size = settings.batch_slices
    meter = NetworkMeter(bundle.on(device).denoiser, watch)
    for first in range(0, len(study), size):
        numbers = range(first, min(first + size, len(study)))
        scored = score_slices(
            torch.from_numpy(images_of_hu(study.hu[first : numbers.stop])),
            scanner,
            meter,
            sampler,
            terms,
            samples=settings.sampling.samples,
            seed=settings.seed,
            numbers=numbers,
            antithetic=settings.sampling.antithetic,
            batch_slices=size,
            device=device,
            stage=None,
        )
        if not torch.isfinite(scored.density).all():
            raise KlipError("the reconstruction did not stay finite; the prior or the settings are at fault")
        for density, number in zip(scored.density, numbers, strict=True):
            tables.add(density, study.body[number], study.lesion[number])
        watch.tell("tuning", numbers.stop, len(study))
    return sorted(tables.candidates(edges), key=lambda one: one.both, reverse=True)


def tuned_settings(settings: DetectionSettings, candidate: Candidate, pixel_mm: float) -> DetectionSettings:
    """The settings with the candidate's score, for `klip-engine detect --settings`."""
    name = f"tuned-{candidate.term.weighting}"
    return replace(settings, score=ScoreSettings(name, (candidate.term,), (candidate.block_pixels * pixel_mm,)))


def tuning_document(
    candidates: Sequence[Candidate], study: Study, settings: DetectionSettings, prior: dict[str, Any]
) -> dict[str, Any]:
    """The whole outcome: the best candidate of each weighting for each level, and every candidate."""
    best = {}
    for weighting in dict.fromkeys(one.term.weighting for one in candidates):
        mine = [one for one in candidates if one.term.weighting == weighting]
        best[weighting] = {
            "image_level": max(mine, key=lambda one: one.image_auroc).to_dict(),
            "dataset_level": max(mine, key=lambda one: one.dataset_auroc).to_dict(),
            "both": mine[0].to_dict(),
        }
    return {
        "schema": SCHEMA,
        "prior": prior,
        "settings": settings.to_dict(),
        "counts": {
            "healthy_slices": sum(case.kind == HEALTHY for case in study.cases),
            "stars": sum(case.kind == TUNING_KIND for case in study.cases),
            "patients": len({case.patient for case in study.cases}),
        },
        "best": best,
        "candidates": [one.to_dict() for one in candidates],
    }


class _Tables:
    """For every candidate: the highest score of each slice, and the image level of each slice with a star."""

    def __init__(self, tried: Sequence[_Family], edges: int) -> None:
        self._tried, self._cells = tuple(tried), edges - 1
        self._spans = list(combinations(range(edges), 2))
        self._keys = [(one, span, block) for one in tried for span in self._spans for block in one.blocks]
        self._usual: list[list[float]] = []
        self._strange: list[list[float]] = []
        self._image: list[list[float]] = []

    def add(self, density: torch.Tensor, body: np.ndarray, lesion: np.ndarray) -> None:
        """One slice: density [families * cells, h, w] of the cells between neighbouring edges, high to low."""
        highest, image = [], []
        for family, parts in zip(self._tried, density.split(self._cells), strict=True):
            summed = torch.cat([torch.zeros_like(parts[:1]), parts.cumsum(0)])
            for first, last in self._spans:
                for block in family.blocks:
                    score = block_means(summed[last] - summed[first], block).numpy()
                    highest.append(float(score[body].max()))
                    if lesion.any():
                        image.append(image_level_auroc(score, touching_blocks(lesion, block), body))
        if lesion.any():
            self._strange.append(highest)
            self._image.append(image)
        else:
            self._usual.append(highest)

    def candidates(self, edges: Sequence[float]) -> list[Candidate]:
        """Every candidate with its figures; edges: noise levels from high to low."""
        usual, strange, image = (np.array(rows) for rows in (self._usual, self._strange, self._image))
        return [
            Candidate(
                ScoreTerm((edges[last], edges[first]), family.weighting, family.coherence_pixels),
                block,
                float(image[:, column].mean()),
                auroc(strange[:, column], usual[:, column]),
            )
            for column, (family, (first, last), block) in enumerate(self._keys)
        ]


def _edges(levels: Sequence[float]) -> list[float]:
    """Noise levels between which windows run, from high to low."""
    places = np.unique(np.linspace(0, len(levels) - 1, min(WINDOW_EDGES, len(levels))).round().astype(int))
    return [levels[place] for place in places]
