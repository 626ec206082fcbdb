"""How much higher healthy slices score when the prior has not seen their patients.

    python benchmarks/unseen_patients.py ../shared/ct --priors runs/cv-65 [--preset sparse-24] [--only 0]
        [--keep klip_engine/data/priors/default]

The priors are those of `cross_validation.py`, each trained without one fold of the patients. Each scores the
healthy slices of all training patients, in the units of a null distribution made of those it has seen; over all
folds every slice is scored by priors that have seen its patient and by one that has not. Printed for every score,
with 90 % intervals over patients: level, the ratio of the medians, unseen to seen; spread, how many times further
apart the logarithms of the upper half lie (least squares through the 50th to 95th percentiles); and how often
slices of patients left out reach the accepted rates, with the null distribution as it is, and raised by what the
other folds' priors make of patients they have not seen. What a fold's prior says is kept beside it; --only scores
one fold, so that folds can run side by side. --keep writes level and spread of the scores whose level lies above 1
into a bundle, and raises the null distributions that lie there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from default_prior.folds import deal_collection
from default_prior.make import PER_SCAN

from klip_engine.calibration import (
    calibrate_scores,
    healthy_reference,
    highest_scores,
    keep_reference,
    usable_variants,
)
from klip_engine.files import write_file
from klip_engine.io.sources import Source
from klip_engine.presets import PRESETS
from klip_engine.priors import PriorBundle, load_prior, load_reference
from klip_engine.scoring.null import AMONG, UNRAISED, NullDistribution, find_null
from klip_engine.settings import SCORES
from klip_engine.slices import Watch
from klip_engine.stacks import between_neighbours, standing_alone

RATES = (0.05, 0.1, 0.2, 0.5)
PERCENTILES = np.arange(50, 96, 5)
DRAWS = 500


@dataclass
class Scored:
    """Highest scores [n] by the prior of one fold, whose they are, whether it has seen these patients, and those of
    its null distribution."""

    maxima: npt.NDArray[np.float64]
    patient: npt.NDArray[np.str_]
    seen: npt.NDArray[np.bool_]
    null: tuple[float, ...]

    def drawn(self, patients: npt.NDArray[np.str_]) -> Scored:
        """Those of these patients, as often as each of them stands there."""
        pick = np.concatenate([np.flatnonzero(self.patient == one) for one in patients])
        return Scored(self.maxima[pick], self.patient[pick], self.seen[pick], self.null)


def score_all(prior: PriorBundle, sources: Sequence[Source], left_out: set[str], preset: str) -> dict[str, Scored]:
    """Healthy slices of all patients by the prior of one fold: every score, among neighbours and alone."""
    settings = PRESETS[preset]
    known = [source for source in sources if source.patient not in left_out]
    reference = healthy_reference(known, prior.ct_grid, PER_SCAN, Watch())
    scores = [variant for score in SCORES.values() for variant in usable_variants(score, prior, reference)]
    nulls = calibrate_scores(prior, settings, scores, "cpu", healthy=reference)
    slices = healthy_reference(sources, prior.ct_grid, PER_SCAN, Watch())
    patient = np.array([sources[scan].patient for scan in slices.scan])
    highest = highest_scores(prior, settings, scores, nulls, "cpu", slices)
    found = {}
    for score, null, maxima in zip(scores, nulls, highest, strict=True):
        whose = patient
        if score.neighbours:
            parts = between_neighbours(slices.stack), standing_alone(slices.stack)
            whose = np.concatenate([patient[part] for part in parts])
        found[null.score_name] = Scored(maxima.astype(float), whose, ~np.isin(whose, sorted(left_out)), null.maxima)
    return found


def save(path: Path, found: dict[str, Scored]) -> None:
    record = {
        name: {key: np.asarray(value).tolist() for key, value in vars(one).items()} for name, one in found.items()
    }
    write_file(path, json.dumps(record).encode())


def load(path: Path) -> dict[str, Scored]:
    record = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Scored(*(np.array(one[key]) for key in ("maxima", "patient", "seen")), tuple(one["null"]))
        for name, one in record.items()
    }


def kept_by(priors: Path, preset: str, fold: int) -> Path:
    """Where the scores of a fold's prior are kept."""
    return priors / f"unseen-{preset}-fold-{fold}.json"


def level_and_spread(folds: Sequence[Scored]) -> tuple[float, float]:
    """Of slices of patients unseen against those of patients seen, over all folds."""
    seen, unseen = (
        np.log(np.percentile(np.concatenate([fold.maxima[fold.seen == group] for fold in folds]), PERCENTILES))
        for group in (True, False)
    )
    rise_seen, rise_unseen = seen - seen[0], unseen - unseen[0]
    return float(np.exp(unseen[0] - seen[0])), float(rise_seen @ rise_unseen / (rise_seen @ rise_seen))


def intervals(folds: Sequence[Scored]) -> npt.NDArray[np.float64]:
    """The 5th and 95th percentile of level and spread over draws of patients, [2, 2]."""
    generator = np.random.default_rng(0)
    patients = np.unique(folds[0].patient)
    drawn = []
    for _ in range(DRAWS):
        pick = generator.choice(patients, len(patients))
        drawn.append(level_and_spread([fold.drawn(pick) for fold in folds]))
    return np.percentile(drawn, (5, 95), axis=0)


def observed(folds: Sequence[Scored], raises: Sequence[tuple[float, float]]) -> list[float]:
    """The share of slices of patients left out that are marked at each of `RATES`, the null of each fold raised."""
    p_values = []
    for fold, raised in zip(folds, raises, strict=True):
        null = NullDistribution(fold.null, (), {}).raised(*raised)
        p_values += [null.p_value(score) for score in fold.maxima[~fold.seen]]
    return [float(np.mean(np.array(p_values) <= rate)) for rate in RATES]


def raising_levels(folds: Sequence[dict[str, Scored]]) -> dict[str, tuple[float, float]]:
    """Level and spread of every score whose level lies above 1 with all of its interval.

    Scores among neighbours are of whole scans, to whose level the null is fitted (`NullDistribution.adapted_to`):
    how patients differ is gone then, and the spread stays as it is.
    """
    found = {}
    for name in folds[0]:
        scored = [fold[name] for fold in folds]
        if intervals(scored)[0, 0] > 1:
            level, spread = level_and_spread(scored)
            found[name] = (round(level, 2), 1.0 if name.endswith(AMONG) else round(spread, 2))
    return found


def keep(bundle: Path, unseen: dict[str, tuple[float, float]]) -> None:
    """Write level and spread beside the bundle's healthy slices and raise its null distributions."""
    prior = load_prior(bundle)
    slices = load_reference(bundle, prior.ct_grid.shape)
    if slices is None or slices.unseen:
        sys.exit(f"{bundle} keeps no healthy slices, or null distributions raised before: calibrate it again first")
    before, raised = slices.digest(), replace(slices, unseen=unseen)
    nulls = []
    for path in (bundle / "null").glob("*.json"):
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
        null = find_null(bundle / "null", settings)
        if null is not None and settings["healthy"] == before:
            null = replace(null, settings=settings | {"healthy": raised.digest()})
            nulls.append(null.raised(*unseen.get(null.score_name, UNRAISED)))
    keep_reference(prior, raised)
    for null in nulls:
        null.save(bundle / "null")


def show(folds: Sequence[dict[str, Scored]]) -> None:
    others = [raising_levels([*folds[:number], *folds[number + 1 :]]) for number in range(len(folds))]
    print("| score | slices left out | level | spread | " + " | ".join(f"at {rate:g}" for rate in RATES) + " |")
    print("|---|---|---|---|" + "---|" * len(RATES))
    for name in folds[0]:
        scored = [fold[name] for fold in folds]
        level, spread = level_and_spread(scored)
        (low_level, low_spread), (high_level, high_spread) = intervals(scored)
        raised = observed(scored, [known.get(name, UNRAISED) for known in others])
        rates = zip(observed(scored, [UNRAISED] * len(folds)), raised, strict=True)
        cells = [
            name,
            str(sum(int((~fold.seen).sum()) for fold in scored)),
            f"{level:.2f} [{low_level:.2f}, {high_level:.2f}]",
            f"{spread:.2f} [{low_spread:.2f}, {high_spread:.2f}]",
            *(f"{before:.2f}, {after:.2f}" for before, after in rates),
        ]
        print("| " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--priors", type=Path, required=True, help="what cross_validation.py wrote: fold-0, ...")
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--only", type=int, help="one fold alone; nothing is printed")
    parser.add_argument("--keep", type=Path, metavar="BUNDLE")
    arguments = parser.parse_args()
    dealt = deal_collection(arguments.ct, arguments.priors, arguments.folds, arguments.only)
    for fold in dealt.chosen:
        path = kept_by(arguments.priors, arguments.preset, fold)
        if not path.exists():
            prior = load_prior(arguments.priors / f"fold-{fold}")
            save(path, score_all(prior, dealt.sources, dealt.left_out[fold], arguments.preset))
    folds = [load(kept_by(arguments.priors, arguments.preset, fold)) for fold in dealt.chosen]
    if arguments.only is None:
        show(folds)
        if arguments.keep:
            keep(arguments.keep, raising_levels(folds))


if __name__ == "__main__":
    main()
