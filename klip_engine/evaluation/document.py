"""The JSON document of an evaluation, schema "klip-evaluation/1", and its table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from klip_engine.detection import NOTICE
from klip_engine.evaluation.measures import (
    FROC_RATES,
    REACH_MM,
    SUPPRESSION_MM,
    SliceResult,
    calibration_figures,
    kind_figures,
)
from klip_engine.evaluation.run import Outcome
from klip_engine.evaluation.statistics import Bootstrap
from klip_engine.evaluation.study import HEALTHY, UNALTERED, Study
from klip_engine.settings import plain_data
from klip_engine.version import __version__
from klip_engine.words import counted

SCHEMA = "klip-evaluation/1"
FEW_LESIONS = 5
"""A kind with fewer gets a notice about its intervals."""

DEFINITIONS = {
    "image_auroc": "mean over altered slices of the AUROC over the sliding blocks whose middle lies in the body, "
    "positive with any pixel in the lesion (arXiv 2605.31596)",
    "dataset_auroc": "AUROC of altered against healthy slices, each scored by its highest block (arXiv "
    "2605.31596); methods with a score of their own per slice by that",
    "average_precision": "of altered against healthy slices, without interpolation",
    "matched_auroc": "AUROC of altered slices against the same slices before the lesion, an original counted once "
    "per altered slice: regions and patients are the same in both groups, and 0.5 means that the lesion does not "
    "move the score of its slice, whatever the dataset level",
    "raised": "share of lesions whose slice scores higher than the same slice before the lesion; ties count half",
    "froc": f"share of lesions found at so many false regions per healthy slice; marked places are maxima at least "
    f"{SUPPRESSION_MM:g} mm apart, one at most {REACH_MM:g} mm from the lesion finds it (Bunch et al. 1978)",
    "calibration": "share of healthy slices whose p-value is at most the nominal rate",
    "interval": "percentiles of a bootstrap over patients and, within them, slices",
}


@dataclass(frozen=True)
class Evaluation:
    """Everything a report is made of."""

    study: Study
    outcome: Outcome
    prior: dict[str, Any]
    settings: dict[str, Any]
    bootstrap: Bootstrap
    total_s: float

    def numbers(self, kind: str) -> list[int]:
        """Numbers of the slices of a kind."""
        return [case.number for case in self.study.cases if case.kind == kind]

    def results(self, method: str, kind: str) -> list[SliceResult]:
        """What a method gave on the slices of a kind."""
        return [self.outcome.results[method][number] for number in self.numbers(kind)]

    def originals(self, method: str, kind: str) -> list[SliceResult] | None:
        """What a method gave on the slices of a kind before alteration, one for each; None where not asked for."""
        before = [self.study.cases[number].original for number in self.numbers(kind)]
        found = [self.outcome.results[method][number] for number in before if number is not None]
        return found if len(found) == len(before) else None

    def patients(self, kind: str) -> list[str]:
        """The patient of every slice of a kind."""
        return [self.study.cases[number].patient for number in self.numbers(kind)]

    @property
    def method_names(self) -> list[str]:
        """The methods in the order asked for; the first is the one that the pictures are about."""
        return [method.name for method in self.outcome.methods]

    @property
    def kinds(self) -> list[str]:
        """Lesion kinds that found at least one place."""
        return [kind for kind in self.settings["lesions"] if self.numbers(kind)]


def evaluation_document(evaluation: Evaluation) -> dict[str, Any]:
    """The whole result as plain data; the same run gives the same document but for `timing`."""
    study, outcome = evaluation.study, evaluation.outcome
    names = evaluation.method_names
    results: dict[str, dict[str, Any]] = {}
    for kind in evaluation.kinds:
        results[kind] = {
            name: kind_figures(
                evaluation.results(name, HEALTHY),
                evaluation.results(name, kind),
                evaluation.patients(HEALTHY),
                evaluation.patients(kind),
                evaluation.bootstrap,
                evaluation.originals(name, kind),
            )
            for name in names
        }
    calibration = {
        method.name: {
            "null": method.null,
            "rates": calibration_figures(
                evaluation.results(method.name, HEALTHY), evaluation.patients(HEALTHY), evaluation.bootstrap
            ),
        }
        for method in outcome.methods
    }
    document = plain_data(
        {
            "schema": SCHEMA,
            "engine": __version__,
            "notice": NOTICE,
            "prior": evaluation.prior,
            "settings": evaluation.settings,
            "definitions": DEFINITIONS,
            "methods": [asdict(method) for method in outcome.methods],
            "scans": [asdict(scan) for scan in study.scans],
            "counts": {
                "patients": len({case.patient for case in study.cases}),
                "scans": len(study.scans),
                **{
                    kind: len(evaluation.numbers(kind))
                    for kind in (HEALTHY, *evaluation.settings["lesions"], UNALTERED)
                },
            },
            "results": results,
            "calibration": calibration,
            "slices": [_slice(evaluation, number) for number in range(len(study))],
            "notices": notices(evaluation),
            "timing": {"total_s": evaluation.total_s} | outcome.timing,
        }
    )
    assert isinstance(document, dict)
    return document


def notices(evaluation: Evaluation) -> list[str]:
    """What a reader of the figures should know."""
    said = []
    for scan in evaluation.study.scans:
        for kind, placed in scan.placed.items():
            if placed < scan.asked:
                said.append(f"{scan.file}: {placed} of {scan.asked} lesions of the kind {kind} found a place.")
    if evaluation.outcome.known_slices:
        said.append(
            f"{evaluation.outcome.known_slices} healthy slices are also reference slices of the prior: the "
            "p-values of these patients say nothing, and their scores flatter. Evaluate other patients."
        )
    lone = int((~evaluation.study.accompanied).sum())
    if lone and evaluation.settings["detection"]["score"]["neighbours"]:
        said.append(f"{lone} slices have no neighbours to be looked at with: every score takes them alone.")
    patients = len({case.patient for case in evaluation.study.cases})
    if patients < 5:
        said.append(f"{counted(patients, 'patient')}: intervals over so few patients are too narrow.")
    lesions = {kind: len(evaluation.numbers(kind)) for kind in evaluation.kinds}
    few = ", ".join(f"{kind} {count}" for kind, count in lesions.items() if count < FEW_LESIONS)
    if few:
        said.append(
            f"Fewer than {FEW_LESIONS} lesions ({few}): resampled they are nearly always the same ones, and an "
            "interval looks narrow that is not."
        )
    return said


def _slice(evaluation: Evaluation, number: int) -> dict[str, Any]:
    case = asdict(evaluation.study.cases[number])
    case["scores"] = {
        method.name: _figures(evaluation.outcome.results[method.name][number])
        for method in evaluation.outcome.methods
    }
    return case


def _figures(result: SliceResult) -> dict[str, Any]:
    """JSON has no -infinity: a lesion that no marked place lies on has null."""
    return {
        "score": result.score,
        "p_value": result.p_value,
        "image_auroc": result.image_auroc,
        "found": result.found if math.isfinite(result.found) else None,
    }


FIGURES = {
    "image_auroc": "image AUROC",
    "dataset_auroc": "dataset AUROC",
    "matched_auroc": "matched AUROC",
    "raised": "raised",
    "average_precision": "average precision",
}
"""Columns of both tables and their headings, before those of FROC."""
_COLUMN_ENDS = ("", "_low", "_high")
COLUMNS = (
    "kind", "method",
    *(f"{name}{end}" for name in FIGURES for end in _COLUMN_ENDS),
    *(f"froc_{rate:g}{end}" for rate in FROC_RATES for end in _COLUMN_ENDS),
    "altered_slices", "healthy_slices", "patients",
)  # fmt: skip


def csv_table(document: dict[str, Any]) -> str:
    """One line per lesion kind and method."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for kind, methods in document["results"].items():
        for name, figures in methods.items():
            cells = [_cell(one[part]) for one in _intervals(figures) for part in ("value", "low", "high")]
            counts = figures["counts"]
            writer.writerow(
                [kind, name, *cells, counts["altered_slices"], counts["healthy_slices"], counts["patients"]]
            )
    return stream.getvalue()


def markdown_report(document: dict[str, Any], pictures: Sequence[str]) -> str:
    """Tables for people, with the pictures below."""
    counts, settings = document["counts"], document["settings"]
    level = round(100 * settings["bootstrap"]["level"])
    lines = [
        "# Evaluation",
        "",
        document["notice"],
        "",
        f"Prior {document['prior']['name']}, operator {settings['detection']['operator']['name']}; "
        f"patients: {counts['patients']}, scans: {counts['scans']}, healthy slices: {counts['healthy']}. "
        f"In brackets: {level} % bootstrap intervals over patients and slices.",
    ]
    for kind, methods in document["results"].items():
        altered = next(iter(methods.values()))["counts"]
        lines += [
            "",
            f"## {kind} (lesions: {altered['altered_slices']}, patients: {altered['patients_with_lesion']})",
            "| method | "
            + " | ".join((*FIGURES.values(), *(f"found at {rate:g} false / slice" for rate in FROC_RATES)))
            + " |",
            "|---" * (1 + len(FIGURES) + len(FROC_RATES)) + "|",
        ]
        for name, figures in methods.items():
            lines.append(f"| {name} | " + " | ".join(bracketed(one) for one in _intervals(figures)) + " |")
    lines += ["", "## Healthy slices marked, by accepted rate of false alarms"]
    rates = [f"{one['nominal']:g}" for one in next(iter(document["calibration"].values()))["rates"]]
    lines += ["| method | p-values from | " + " | ".join(rates) + " |", "|---" * (2 + len(rates)) + "|"]
    for name, one in document["calibration"].items():
        cells = " | ".join(bracketed(rate["observed"]) for rate in one["rates"])
        lines.append(f"| {name} | {one['null']['from']} | {cells} |")
    lines += [
        "",
        "## What the figures mean",
        *(f"- {name}: {text}" for name, text in document["definitions"].items()),
    ]
    lines += [f"- {method['name']}: {method['source']}" for method in document["methods"]]
    if document["notices"]:
        lines += ["", "## Notices", *(f"- {text}" for text in document["notices"])]
    lines += ["", "## Pictures", *(f"![{name}]({name})" for name in pictures)]
    return "\n".join(lines) + "\n"


def _intervals(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """In the order of the columns."""
    return [figures[name] for name in FIGURES] + [figures["froc"][f"{rate:g}"] for rate in FROC_RATES]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def bracketed(interval: dict[str, Any]) -> str:
    """A figure of the document with its interval, for people."""
    if interval["value"] is None:
        return "-"
    return f"{interval['value']:.3f} [{interval['low']:.2f}, {interval['high']:.2f}]"
