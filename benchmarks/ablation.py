"""What each part of the score brings: window, block, weighting, terms, places, and the null's healthy slices.

    python benchmarks/ablation.py ../shared/ct [--preset default] [--count 6] [--cases validation] [-o FILE]

All variants are computed from the same posterior samples of the slices that `benchmarks/detection.py` evaluates, so
differences between rows are the score's alone; a null is of slices among neighbours where the score looks at them.
Writes a table, image / dataset level / matched AUROC for each kind of lesion.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from detection import CASES

from klip_engine.calibration import calibrate_scores
from klip_engine.console import ProgressStyle, make_reporter
from klip_engine.drawing import drawn_slices
from klip_engine.evaluation.stacked_slices import StackedSlices
from klip_engine.evaluation.study import HEALTHY, Study, StudySettings, collect_study
from klip_engine.files import write_file
from klip_engine.io.sources import Source
from klip_engine.presets import choose_settings
from klip_engine.priors import load_prior, load_reference
from klip_engine.scoring.klip import ALL_LEVELS, ScoreTerm, Window
from klip_engine.scoring.metrics import auroc, image_level_auroc, touching_blocks
from klip_engine.scoring.null import NullDistribution
from klip_engine.scoring.score_map import slice_maxima
from klip_engine.settings import SCORES, ScoreSettings
from klip_engine.slices import NetworkMeter, Watch, score_images, score_map
from klip_engine.volume import FloatArray
from klip_engine.working_grid import images_of_hu

WINDOW: Window = (0.2, 0.8)
WEIGHTINGS: tuple[tuple[str, ScoreTerm], ...] = (
    ("plain pulls", ScoreTerm(WINDOW, "plain")),
    ("variance-weighted", ScoreTerm(WINDOW, "variance")),
    ("coherent", ScoreTerm(WINDOW, "coherent")),
)

BEFORE = (
    ScoreTerm((0.02, 0.08), "coherent", 1.0),
    ScoreTerm((0.02, 0.08), "coherent", 1.5),
    ScoreTerm((0.2, 0.7), "coherent", 1.5),
    ScoreTerm((0.2, 0.7), "coherent", 2.2),
    ScoreTerm((0.7, 3.0), "coherent", 1.5),
    ScoreTerm((1.3, 3.0), "plain-coherent", 3.0),
)

FOUR_TERMS = (
    *SCORES["klip-multiscale"].terms[:3],
    ScoreTerm((0.2, 0.8), "plain-energy", 4.0, unit_quantile=0.98),
)
"""Of an earlier default score, each averaged over neighbours."""


def variants() -> dict[str, ScoreSettings]:
    """Scores by what they show: from the plain divergence to the default score, and that with a part left out."""
    default = SCORES["klip-multiscale"]
    rows = {"whole divergence, single pixels": _single(ScoreTerm(ALL_LEVELS))}
    rows |= {f"window 0.2 to 0.8, {name}": _single(term) for name, term in WEIGHTINGS}
    rows["window 0.2 to 0.8, plain pulls, block 9 mm"] = _single(ScoreTerm(WINDOW, "plain"), 9.0)
    rows["six terms, slices alone (an earlier default)"] = replace(default.alone, terms=BEFORE)
    rows["four terms, all over neighbours (an earlier default)"] = replace(default, terms=FOUR_TERMS)
    averaged = tuple(dict.fromkeys(replace(term, over_neighbours=True) for term in default.terms))
    rows["default score"] = default
    rows["... without neighbours"] = default.alone
    rows["... every term over neighbours"] = replace(default, terms=averaged)
    lung = default.place_edges_hu[:1]
    rows["... bone as soft tissue (the default before)"] = replace(default, place_edges_hu=lung)
    rows["... without places"] = replace(default, place_edges_hu=())
    for name, keep in _leave_one_out():
        rows[f"... without {name}"] = replace(default, terms=tuple(term for term in default.terms if keep(term)))
    return rows


def _single(term: ScoreTerm, block_mm: float = 3.0) -> ScoreSettings:
    return ScoreSettings("single", (term,), (block_mm,))


def _leave_one_out() -> Sequence[tuple[str, Callable[[ScoreTerm], bool]]]:
    return (
        ("low noise levels", lambda term: term.window != (0.06, 0.3)),
        ("middle noise levels", lambda term: term.window != (0.2, 0.7)),
        ("high noise levels", lambda term: term.window != (0.5, 1.5)),
        ("local energy", lambda term: term.weighting != "plain-energy"),
        ("energy of denser pulls", lambda term: term.weighting != "plain-denser-energy"),
    )


def row(study: Study, maps: FloatArray, null: NullDistribution, kinds: Sequence[str]) -> list[str]:
    """Cells of one variant: image / dataset level / against the same slices before the lesion for each kind, false
    alarms at the rates 0.1 and 0.2."""
    of = np.array([case.kind for case in study.cases])
    slices = slice_maxima(maps, study.body)
    cells = []
    for kind in kinds:
        image = [
            image_level_auroc(maps[n], touching_blocks(study.lesion[n], 1), study.body[n])
            for n in np.flatnonzero(of == kind)
        ]
        before = slices[[case.original for case in study.cases if case.kind == kind]]
        levels = (
            np.mean(image),
            auroc(slices[of == kind], slices[of == HEALTHY]),
            auroc(slices[of == kind], before),
        )
        cells.append(" / ".join(f"{level:.3f}" for level in levels))
    p_values = np.array([null.p_value(float(score)) for score in slices[of == HEALTHY]])
    return [*cells, f"{(p_values <= 0.1).mean():.2f}, {(p_values <= 0.2).mean():.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--prior", default="default")
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--cases", choices=list(CASES), default="validation")
    parser.add_argument("--lesions", default="tumor,nodule,star,effusion,metal")
    parser.add_argument("--drawn", type=int, default=64, help="slices drawn for a null; 0: no such row")
    parser.add_argument("-o", "--out", type=Path)
    arguments = parser.parse_args()
    kinds = tuple(arguments.lesions.split(","))
    settings, prior = choose_settings(arguments.preset), load_prior(arguments.prior)
    reporter = make_reporter(ProgressStyle.RICH)
    watch = Watch(reporter.progress)
    sources = [
        Source(arguments.ct / "series" / f"{case}.nrrd", case, ranges)
        for case, ranges in CASES[arguments.cases].items()
    ]
    study = collect_study(sources, prior.grid, StudySettings(kinds, arguments.count))
    scores = variants()
    meter = NetworkMeter(prior.denoiser, watch)
    reference = load_reference(prior.folder, prior.ct_grid.shape)
    if reference is not None:  # how patients unseen score was measured for the default alone
        reference = replace(reference, unseen={})
    nulls = calibrate_scores(prior, settings, list(scores.values()), "cpu", healthy=reference, watch=watch)
    for score, null in zip(scores.values(), nulls, strict=True):
        if score.neighbours != null.identity()["neighbours"]:
            raise SystemExit("the prior keeps no healthy slices with neighbours: calibrate it with --healthy")
    default = SCORES["klip-multiscale"]
    others = {}
    if arguments.drawn:
        drawn = drawn_slices(prior, arguments.drawn, settings, "cpu", meter)
        found = calibrate_scores(prior, settings, [default.alone], "cpu", healthy=drawn, watch=watch)[0]
        others[f"... and null from {arguments.drawn} drawn slices"] = found
    stacks = StackedSlices.of(study.hu, study.around, range(len(study)))
    if not stacks.accompanied.all():
        raise SystemExit("slices without neighbours have a null of their own: take other scans")
    scored = score_images(
        images_of_hu(stacks.hu), prior, settings, "cpu", meter, "scoring", list(scores.values()), stacks.numbers
    )
    reporter.close()
    densities = scored.density.split([len(score.terms) for score in scores.values()], dim=1)
    lines = [["", *(f"{kind}, image / dataset / matched" for kind in kinds), "false alarms asked for 0.1, 0.2"]]
    for (name, score), density, null in zip(scores.items(), densities, nulls, strict=True):
        nulls_of = {name: null} | (others if score == default.alone else {})
        for label, used in nulls_of.items():
            maps = score_map(density, scored.reconstruction, score, prior, used.scales, stacks.of_slice)
            maps = maps[stacks.middle]
            lines.append([label, *row(study, maps, used, kinds)])
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in [lines[0], ["---"] * len(lines[0]), *lines[1:]])
    print(table)
    out = arguments.out or Path("runs") / f"ablation-{arguments.cases}-{arguments.preset}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, (table + "\n").encode())


if __name__ == "__main__":
    main()
