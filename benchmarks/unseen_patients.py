"""How much higher healthy slices score when the prior has not seen their patients.

    python benchmarks/unseen_patients.py ../shared/ct --priors runs/cv-65 [--preset sparse-24] [--only 0]

The priors are those of `cross_validation.py`, each trained without one fold of the patients. Each scores the
healthy slices of all training patients, in the units of a null distribution made of those it has seen; over all
folds every slice is scored by priors that have seen its patient and by one that has not. Printed for every score,
with 90 % intervals over patients: level, the ratio of the medians, unseen to seen; spread, how many times further
apart the logarithms of the upper half lie (least squares through the 50th to 95th percentiles); and how often
slices of patients left out reach the accepted rates, with the null distribution as it is and with both. What a
fold's prior says is kept beside it; --only scores one fold, so that folds can run side by side.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cross_validation import deal
from default_prior.make import PER_SCAN, write_tables

from klip_engine.calibration import calibrate_scores, healthy_reference, highest_scores, usable_variants
from klip_engine.files import write_file
from klip_engine.io.sources import Source, read_manifest
from klip_engine.presets import PRESETS
from klip_engine.priors import PriorBundle, load_prior
from klip_engine.scoring.null import null_from_scores
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
        whose, name = patient, score.name
        if score.neighbours:
            parts = between_neighbours(slices.stack), standing_alone(slices.stack)
            whose, name = np.concatenate([patient[part] for part in parts]), f"{name}, among neighbours"
        found[name] = Scored(maxima.astype(float), whose, ~np.isin(whose, sorted(left_out)), null.maxima)
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


def observed(folds: Sequence[Scored], level: float, spread: float) -> list[float]:
    """The share of slices of patients left out that are marked at each of `RATES`."""
    p_values = []
    for fold in folds:
        middle = float(np.median(fold.null))
        null = null_from_scores((level * middle * (np.array(fold.null) / middle) ** spread).tolist(), [], {})
        p_values += [null.p_value(score) for score in fold.maxima[~fold.seen]]
    return [float(np.mean(np.array(p_values) <= rate)) for rate in RATES]


def show(folds: Sequence[dict[str, Scored]]) -> None:
    print("| score | slices left out | level | spread | " + " | ".join(f"at {rate:g}" for rate in RATES) + " |")
    print("|---|---|---|---|" + "---|" * len(RATES))
    for name in folds[0]:
        scored = [fold[name] for fold in folds]
        level, spread = level_and_spread(scored)
        (low_level, low_spread), (high_level, high_spread) = intervals(scored)
        rates = zip(observed(scored, 1.0, 1.0), observed(scored, level, spread), strict=True)
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
    arguments = parser.parse_args()
    table, _ = write_tables(arguments.ct, arguments.priors / "tables")
    sources = read_manifest(table)
    folds = []
    for fold, left_out in enumerate(deal(sources, arguments.folds)):
        if arguments.only not in (None, fold):
            continue
        kept = arguments.priors / f"unseen-{arguments.preset}-fold-{fold}.json"
        if not kept.exists():
            prior = load_prior(arguments.priors / f"fold-{fold}")
            save(kept, score_all(prior, sources, left_out, arguments.preset))
        folds.append(load(kept))
    if arguments.only is None:
        show(folds)


if __name__ == "__main__":
    main()
