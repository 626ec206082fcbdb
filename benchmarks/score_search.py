"""Which terms make the score that finds lesions best, on training patients, every kind of lesion counting alike.

    python benchmarks/score_search.py ../shared/ct [--presets default,sparse-24] [--count 4] [--alone] [--compare]
        [--place-edges=-400,100] [--prior BUNDLE --left-out] [--out DIR]

Lesions are inserted into the scans of the patients the default prior was trained on; with --left-out into those of
patients excluded when the given prior was trained (benchmarks/cross_validation.py). The two validation patients are
not touched. --compare: no search, a table of the scores named in `compared`. The pulls of every slice are kept by
noise level, so that any score of `klip_engine.scoring.klip` can be computed from the same posterior samples.
Combinations of terms (the largest counts, each in units of what is usual in lung or elsewhere, averaged over
neighbouring slices unless --alone) are grown greedily from several starts, one term added, left out or changed at a
time.

Judged by the mean over presets and kinds of image-level and dataset-level AUROC. Because much is tried, the choice
is checked by leaving scans out: chosen on one half of them, its figures on the other half, both ways.
A started run is continued: each scan's pulls are kept in OUT.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product
from pathlib import Path

import numpy as np
import torch
from ablation import FOUR_TERMS
from default_prior.make import write_tables
from safetensors.torch import load_file, save_file

from klip_engine.evaluation.stacked_slices import StackedSlices
from klip_engine.evaluation.study import HEALTHY, StudySettings, collect_study
from klip_engine.files import replaced_file
from klip_engine.io.sources import Source, read_manifest
from klip_engine.presets import choose_settings
from klip_engine.priors import load_prior
from klip_engine.priors.bundle import PriorBundle
from klip_engine.samplers.base import Step
from klip_engine.scoring.klip import KlipAccumulator, ScoreTerm, Window
from klip_engine.scoring.metrics import auroc
from klip_engine.scoring.score_map import local_places, terms_over_neighbours
from klip_engine.settings import SCORES, DetectionSettings
from klip_engine.slices import NetworkMeter, scanner_and_sampler, score_images
from klip_engine.working_grid import images_of_hu

KINDS = ("star", "tumor", "nodule", "effusion", "metal")
WINDOWS: tuple[Window, ...] = (
    (0.03, 0.12), (0.06, 0.3), (0.1, 0.5), (0.2, 0.7), (0.2, 0.8), (0.3, 1.0), (0.5, 1.5), (0.7, 3.0),
    (0.2, 3.0),
)  # fmt: skip
WEIGHTINGS = ("coherent", "geometric-coherent", "plain-coherent", "plain-energy", "plain-denser-energy")
SCALES = (1.0, 1.5, 2.5, 4.0)
QUANTILES = (0.9, 0.95, 0.98)
OUTSIDE = 800
"""Pixels outside the lesion that stand for all of an altered slice, drawn once."""
DEFAULT = SCORES["klip-multiscale"]
MOST_TERMS = 6

Terms = tuple[ScoreTerm, ...]


def candidate_terms() -> Terms:
    chosen = (
        ScoreTerm(*one)  # type: ignore[arg-type]
        for one in product(WINDOWS, WEIGHTINGS, SCALES, QUANTILES)
        if (one[0][0] >= 0.2 if one[1].endswith("energy") else one[3] == QUANTILES[0])  # what was worth trying
    )
    return tuple(dict.fromkeys((*DEFAULT.terms, *chosen)))


def compared() -> dict[str, Terms]:
    """Scores by what they show: the default, those it was chosen over, and those it came from."""
    low, middle, high, high_alone, energy, denser = DEFAULT.terms
    before = FOUR_TERMS[-1]
    return {
        "the default": DEFAULT.terms,
        "four terms, all averaged over neighbours (an earlier default)": FOUR_TERMS,
        "... all of slices alone": tuple(replace(term, over_neighbours=False) for term in FOUR_TERMS),
        "... high noise levels alone": (low, middle, high_alone, before),
        "... high noise levels averaged and alone": (low, middle, high, high_alone, before),
        "the default without high noise levels averaged": (low, middle, high_alone, energy, denser),
        "... without high noise levels alone": (low, middle, high, energy, denser),
        "... without local energy": (low, middle, high, high_alone, denser),
        "... without the energy of denser pulls": (low, middle, high, high_alone, energy),
        "... denser pulls from 200 to 800 HU": (
            *DEFAULT.terms[:5], replace(denser, window=(0.2, 0.8))
        ),
        "... denser pulls over 18 mm": (*DEFAULT.terms[:5], replace(denser, coherence_pixels=6.0)),
        "... denser pulls from 700 to 3000 HU": (*DEFAULT.terms[:5], replace(denser, window=(0.7, 3.0))),
    }  # fmt: skip


class PullKeeper:
    """A step observer that keeps, for every slice and noise level, the mean pull over the samples divided by sigma,
    and the mean predicted variance divided by sigma^2, [slices, levels, h, w] each."""

    def __init__(self) -> None:
        self.pulls: list[torch.Tensor] = []
        self.variances: list[torch.Tensor] = []
        self._batch: list[tuple[torch.Tensor, torch.Tensor]] = []

    def observe(self, step: Step) -> None:
        assert step.log_variance is not None
        pull = (step.posterior_mean - step.prior_mean)[:, 0] / step.sigma
        self._batch.append((pull, step.log_variance[:, 0].exp() / step.sigma**2))

    def finish(self, numbers: Sequence[int], samples: int) -> None:
        for kept, part in zip((self.pulls, self.variances), zip(*self._batch, strict=True), strict=True):
            grouped = torch.stack(part, dim=1).unflatten(0, (len(numbers), samples))
            kept.append(grouped.mean(dim=1).half())
        self._batch = []


def keep_pulls(
    scan: Source, number: int, prior: PriorBundle, settings: DetectionSettings, study: StudySettings, path: Path
) -> None:
    """Slices of one scan, healthy and altered, and their pulls, into one file."""
    slices = collect_study([scan], prior.ct_grid, replace(study, seed=number))
    keeper = PullKeeper()
    meter = NetworkMeter(prior.denoiser)
    stacks = StackedSlices.of(slices.hu, slices.around, range(len(slices)))
    scored = score_images(
        images_of_hu(stacks.hu),
        prior,
        settings,
        "cpu",
        meter,
        None,
        scores=[SCORES["kl"]],
        numbers=stacks.numbers,
        observer=keeper,
    )
    kinds = [-1 if case.kind == HEALTHY else KINDS.index(case.kind) for case in slices.cases]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as partial:
        save_file(
            {
                "pulls": torch.cat(keeper.pulls),
                "variances": torch.cat(keeper.variances),
                "reconstruction": scored.reconstruction[stacks.middle, 0].contiguous(),
                "stacks": torch.from_numpy(stacks.of_slice),
                "middle": torch.tensor(stacks.middle),
                "body": torch.from_numpy(slices.body),
                "lesion": torch.from_numpy(slices.lesion),
                "kinds": torch.tensor(kinds),
            },
            partial,
        )


@dataclass(frozen=True)
class Scores:
    """All terms on the slices of some scans under one preset.

    quantiles: of each term, what of the healthy slices' highest values counts as 1; peaks: the highest value of
    each term at each place of each slice, [terms, places, slices], 0 where a slice does not show the place; kinds,
    scans: of each slice, -1 healthy; pixels: of every altered slice, its values [terms, n], their places and
    whether they lie in the lesion.
    """

    quantiles: tuple[float, ...]
    peaks: np.ndarray
    kinds: np.ndarray
    scans: np.ndarray
    pixels: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]

    @staticmethod
    def joined(parts: Sequence[Scores]) -> Scores:
        peaks, kinds, scans = zip(*((one.peaks, one.kinds, one.scans) for one in parts), strict=True)
        pixels = tuple(pixels for one in parts for pixels in one.pixels)
        return Scores(
            parts[0].quantiles,
            np.concatenate(peaks, axis=2),
            np.concatenate(kinds),
            np.concatenate(scans),
            pixels,
        )

    @cached_property
    def units(self) -> np.ndarray:
        """[terms, places]: as `scoring.score_map.block_scales` of the healthy slices."""
        healthy = self.peaks[:, :, self.kinds < 0]
        shown = np.where(healthy > 0, healthy, np.nan)
        units = [np.nanquantile(one, quantile, axis=1) for one, quantile in zip(shown, self.quantiles, strict=True)]
        return np.nan_to_num(np.stack(units), nan=1.0)


def scores_of(
    path: Path,
    scan: int,
    terms: Terms,
    levels: Sequence[float],
    pixel_mm: float,
    neighbours: bool,
    edges_hu: Sequence[float],
) -> Scores:
    kept = load_file(path)
    places = local_places(1000 * kept["reconstruction"].numpy(), edges_hu, DEFAULT.place_mm / pixel_mm)
    body, lesion, kinds = (kept[name].numpy() for name in ("body", "lesion", "kinds"))
    accumulator = KlipAccumulator(terms, levels, len(kept["stacks"]), 1)
    for number, sigma in enumerate(levels):
        pull = sigma * kept["pulls"][:, number, None].float()
        variance = sigma**2 * kept["variances"][:, number, None].float().clamp(min=1e-8)
        accumulator.add(Step(sigma, torch.zeros_like(pull), pull, variance.log()))
    density = accumulator.density()
    if neighbours:
        density = terms_over_neighbours(density, terms, kept["stacks"].numpy())
    maps = density[kept["middle"]].numpy()  # [slices, terms, h, w]
    peaks = [
        np.where((body & (places == place))[:, None], maps, 0).max(axis=(2, 3)).T
        for place in range(len(edges_hu) + 1)
    ]
    rng = np.random.default_rng(scan)
    pixels = []
    for n in np.flatnonzero(kinds >= 0):
        touched = lesion[n] & body[n]
        outside = np.flatnonzero(body[n] & ~touched)
        pick = np.concatenate(
            [np.flatnonzero(touched), rng.choice(outside, min(OUTSIDE, len(outside)), replace=False)]
        )
        values = maps[n].reshape(len(terms), -1)[:, pick]
        pixels.append((values, places[n].ravel()[pick], touched.ravel()[pick]))
    quantiles = tuple(term.unit_quantile for term in terms)
    return Scores(quantiles, np.stack(peaks, axis=1), kinds, np.full(len(kinds), scan), tuple(pixels))


@dataclass(frozen=True)
class Judge:
    """What a combination of terms (their numbers) is worth on some scans."""

    presets: tuple[Scores, ...]

    def figures(self, combination: tuple[int, ...], scans: frozenset[int] | None = None) -> np.ndarray:
        """AUROC [presets, kinds, (image, dataset)]; NaN where a kind was placed nowhere."""
        return np.stack([_figures(one, combination, scans) for one in self.presets])

    def worth(self, combination: tuple[int, ...], scans: frozenset[int] | None = None) -> float:
        return float(np.nanmean(self.figures(combination, scans)))


def _figures(scores: Scores, combination: tuple[int, ...], scans: frozenset[int] | None) -> np.ndarray:
    chosen = list(combination)
    units = scores.units[chosen]
    slices = (scores.peaks[chosen] / units[:, :, None]).max(axis=(0, 1))
    wanted = np.ones(len(slices), bool) if scans is None else np.isin(scores.scans, list(scans))
    altered = np.flatnonzero(scores.kinds >= 0)
    image: list[list[float]] = [[] for _ in KINDS]
    for n, (values, places, inside) in zip(altered, scores.pixels, strict=True):
        if wanted[n] and inside.any():
            combined = (values[chosen] / units[:, places]).max(axis=0)
            image[scores.kinds[n]].append(auroc(combined[inside], combined[~inside]))
    rows = []
    for kind, of_kind in enumerate(image):
        there = wanted & (scores.kinds == kind)
        healthy = slices[wanted & (scores.kinds < 0)]
        rows.append((np.mean(of_kind), auroc(slices[there], healthy)) if of_kind else (np.nan, np.nan))
    return np.array(rows)


def grown(judge: Judge, count: int, start: tuple[int, ...], scans: frozenset[int] | None = None) -> tuple[int, ...]:
    """The best combination reached from `start` by adding, leaving out or changing one term at a time."""
    worth = cache(lambda combination: judge.worth(combination, scans))
    best = tuple(sorted(start))
    while True:
        found = max(set(_neighbours(best, count)), key=worth)
        if worth(found) <= worth(best) + 5e-4:  # a term that brings less is not worth having
            return best
        best = found


def _neighbours(combination: tuple[int, ...], count: int) -> Iterator[tuple[int, ...]]:
    """Tuples of numbers, sorted."""
    others = [n for n in range(count) if n not in combination]
    if len(combination) < MOST_TERMS:
        yield from (tuple(sorted((*combination, n))) for n in others)
    for left_out in combination:
        rest = tuple(n for n in combination if n != left_out)
        if rest:
            yield rest
        yield from (tuple(sorted((*rest, n))) for n in others)


def named(term: ScoreTerm) -> str:
    window = f"({term.window[0]:g}, {term.window[1]:g})"
    alone = "" if term.over_neighbours else " alone"
    return f"{window} {term.weighting} {term.coherence_pixels:g} at {term.unit_quantile:g}{alone}"


def line(judge: Judge, combination: tuple[int, ...], scans: frozenset[int] | None = None) -> str:
    cells = [
        " ".join(f"{image:.3f}/{dataset:.3f}" for image, dataset in of_preset)
        for of_preset in judge.figures(combination, scans)
    ]
    return f"{judge.worth(combination, scans):.4f} | {' | '.join(cells)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--prior", default="default")
    parser.add_argument("--presets", default="default,sparse-24")
    parser.add_argument("--count", type=int, default=4, help="lesions per kind and scan")
    parser.add_argument("--healthy", type=int, default=12, help="healthy slices per scan")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/score-search"))
    parser.add_argument("--collect-only", action="store_true")
    parser.add_argument("--alone", action="store_true", help="score every slice without its neighbours")
    parser.add_argument("--compare", action="store_true", help="the scores named in `compared` instead of a search")
    parser.add_argument(
        "--place-edges", default="", help="HU that tell places apart, with commas; default: the score's"
    )
    parser.add_argument("--left-out", action="store_true", help="patients excluded from the prior's training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prior = load_prior(arguments.prior)
    sources = [
        one
        for one in read_manifest(write_tables(arguments.ct, arguments.out / "tables")[0])
        if one.path.parent.name == "series"
        and (not arguments.left_out or one.patient in prior.training["excluded_patients"])
    ]
    study = StudySettings(KINDS, arguments.count, arguments.healthy, matched=False)
    terms = candidate_terms()
    if arguments.compare:
        terms = tuple(dict.fromkeys(term for chosen in compared().values() for term in chosen))
    edges_hu = [float(edge) for edge in arguments.place_edges.split(",") if edge] or DEFAULT.place_edges_hu
    judged = []
    for preset in arguments.presets.split(","):
        settings = choose_settings(preset)
        settings = replace(settings, sampling=replace(settings.sampling, samples=arguments.samples))
        levels = scanner_and_sampler(prior, settings)[1].levels
        chosen = (prior.sha256[:8], preset, arguments.samples, arguments.count, arguments.healthy)
        folder = arguments.out / "-".join(map(str, chosen))
        parts = []
        for number, source in enumerate(sources):
            path = folder / f"{source.path.stem}.safetensors"
            if not path.exists():
                keep_pulls(source, number, prior, settings, study, path)
                print(f"{preset}: {source.path.stem} kept", flush=True)
            if not arguments.collect_only:
                parts.append(
                    scores_of(path, number, terms, levels, prior.pixel_size, not arguments.alone, edges_hu)
                )
        if parts:
            judged.append(Scores.joined(parts))
    if arguments.collect_only:
        return
    if arguments.compare:
        compare(Judge(tuple(judged)), terms)
    else:
        search(Judge(tuple(judged)), terms, len(sources))


def head(judge: Judge) -> None:
    print(
        f"healthy slices: {(judge.presets[0].kinds < 0).sum()}; lesions: "
        + ", ".join(f"{(judge.presets[0].kinds == n).sum()} {kind}" for n, kind in enumerate(KINDS))
    )
    print("worth | image/dataset of " + ", ".join(KINDS) + " | ... of each preset")


def compare(judge: Judge, terms: Terms) -> None:
    head(judge)
    for name, chosen in compared().items():
        print(f"{line(judge, tuple(terms.index(term) for term in chosen))} | {name}", flush=True)


def search(judge: Judge, terms: Terms, scans: int) -> None:
    default = tuple(range(len(DEFAULT.terms)))
    head(judge)
    print(f"{line(judge, default)} | today's default", flush=True)
    singles = sorted(((judge.worth((n,)), n) for n in range(len(terms))), reverse=True)
    for _, n in singles[:10]:
        print(f"{line(judge, (n,))} | {named(terms[n])}", flush=True)
    starts = [default, *((n,) for _, n in singles[:3])]
    halves = [frozenset(range(part, scans, 2)) for part in (0, 1)]
    for half, other in (halves, halves[::-1]):
        chosen = max(
            (grown(judge, len(terms), start, half) for start in starts[:2]),
            key=lambda found: judge.worth(found, half),
        )
        print(f"chosen on scans {sorted(half)}: " + "; ".join(named(terms[n]) for n in chosen))
        print(f"{line(judge, chosen, other)} | on the others")
        print(f"{line(judge, default, other)} | today's default on the others", flush=True)
    for start in starts:
        found = grown(judge, len(terms), start)
        print(f"{line(judge, found)} | " + "; ".join(named(terms[n]) for n in found), flush=True)


if __name__ == "__main__":
    main()
