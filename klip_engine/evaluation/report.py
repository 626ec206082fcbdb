"""Files of an evaluation: the JSON document, the table as Markdown and CSV, and pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from klip_engine.errors import UsageError
from klip_engine.evaluation.document import Evaluation, csv_table, markdown_report
from klip_engine.evaluation.measures import PEAKS_PER_SLICE, SliceResult
from klip_engine.evaluation.study import HEALTHY
from klip_engine.files import write_file
from klip_engine.scoring.metrics import auroc, froc_sensitivity, roc_curve
from klip_engine.words import install_extra

RESEARCH = "Research only. Lesions are synthetic."
EXAMPLES = 3
"""Best and worst slices shown per kind."""
LINES = ("--", "-.", ":")
SCALE_BAR_MM = 50.0


def require_matplotlib() -> None:
    """Raise UsageError, with the cure, when the pictures cannot be drawn; an evaluation checks this first."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(f"an evaluation draws pictures with matplotlib: {install_extra('train')}") from error


def write_report(evaluation: Evaluation, document: dict[str, Any], folder: Path, json_file: Path) -> list[Path]:
    """Write evaluation.md, evaluation.csv and the pictures to the folder, and the JSON file last.

    Each file is complete or not there. Raises UsageError where they cannot be written, ResourceError on a full
    disk.
    """
    pictures = {
        "roc.png": _roc(evaluation),
        "froc.png": _froc(evaluation),
        "calibration.png": _calibration(document),
        **{f"examples-{kind}.png": _examples(evaluation, kind) for kind in evaluation.kinds},
    }
    texts = {"evaluation.md": markdown_report(document, list(pictures)), "evaluation.csv": csv_table(document)}
    written = []
    for name, figure in pictures.items():
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=100)
        written.append(write_file(folder / name, stream.getvalue()))
    for earlier in set(folder.glob("examples-*.png")) - set(written):
        earlier.unlink()
    for name, text in texts.items():
        written.append(write_file(folder / name, text.encode()))
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    written.append(write_file(json_file, text.encode()))
    return written


def _figure(
    columns: int, rows: int = 1, size: float = 4.0, title: str = "", aspect: float = 1.0, beside: float = 0.0
) -> tuple[Any, Any]:
    """Panels of `size` inches with room for a legend `beside` them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size * columns + beside, (aspect * size + 0.4) * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(RESEARCH, x=0.995, ha="right", fontsize=7, color="0.4")
    return figure, panels


def _styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How each method is drawn: the first, which the pictures are about, thick and above the others, up to 27 of
    which differ from each other."""
    first, *others = names
    styles = {first: {"color": "C0", "lw": 2.4, "zorder": 3, "label": first}}
    for n, name in enumerate(others):
        styles[name] = {"color": f"C{1 + n % 9}", "lw": 1.2, "ls": LINES[(n + n // 9) % len(LINES)], "label": name}
    return styles


def _legend_beside(figure: Any, axes: Any) -> None:
    """One legend for all panels, where no curve runs."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=9, frameon=False)


def _roc(evaluation: Evaluation) -> Any:
    """One column per kind: altered against healthy slices, and below against themselves before alteration."""
    against: dict[str, Callable[[str, str], list[SliceResult]]] = {
        "healthy slices": lambda method, kind: evaluation.results(method, HEALTHY)
    }
    if evaluation.settings["matched"]:
        against["same slices without lesion"] = lambda method, kind: evaluation.originals(method, kind) or []
    title = f"Slices with a lesion against {', and against the '.join(against)}"
    figure, rows = _figure(len(evaluation.kinds), len(against), title=title, beside=2.0)
    styles = _styles(evaluation.method_names)
    for (usual, results), panels in zip(against.items(), rows, strict=True):
        for axes, kind in zip(panels, evaluation.kinds, strict=True):
            areas = []
            for name, style in styles.items():
                slices = (evaluation.results(name, kind), results(name, kind))
                groups = [[one.score for one in group] for group in slices]
                areas.append(auroc(*groups))
                axes.plot(*roc_curve(*groups), **style)
            axes.plot([0, 1], [0, 1], color="0.6", lw=0.8)
            axes.set(xlabel=f"{usual} marked", ylabel="slices with a lesion marked", aspect="equal")
            axes.set_title(f"{kind}: AUROC {areas[0]:.2f}{_best_other(areas[1:])}", fontsize=10)
            axes.grid(alpha=0.3)
    _legend_beside(figure, rows[0, 0])
    return figure


def _best_other(areas: Sequence[float]) -> str:
    return f", best other {max(areas):.2f}" if areas else ""


def _froc(evaluation: Evaluation) -> Any:
    """One panel per kind: lesions found against false regions per healthy slice."""
    rates = np.linspace(0, 4, 81)
    figure, panels = _figure(len(evaluation.kinds), title="Lesions found (FROC)", beside=2.0)
    for axes, kind in zip(panels[0], evaluation.kinds, strict=True):
        for name, style in _styles(evaluation.method_names).items():
            healthy = evaluation.results(name, HEALTHY)
            false = [score for one in healthy for score in one.marked[:PEAKS_PER_SLICE]]
            found = [one.found for one in evaluation.results(name, kind)]
            shares = froc_sensitivity(found, false, len(healthy), rates.tolist())
            axes.plot(rates, shares, **style)
        axes.set(title=kind, xlabel="false regions per healthy slice", ylabel="lesions found", ylim=(-0.03, 1.03))
        axes.grid(alpha=0.3)
    _legend_beside(figure, panels[0, 0])
    return figure


def _calibration(document: dict[str, Any]) -> Any:
    """Observed against nominal share of healthy slices marked, with the confidence interval of the first method."""
    figure, panels = _figure(1, size=5.0, title="False alarms on healthy slices", beside=2.0)
    axes, first = panels[0, 0], next(iter(document["calibration"]))
    for name, style in _styles(list(document["calibration"])).items():
        rates = document["calibration"][name]["rates"]
        nominal = [rate["nominal"] for rate in rates]
        value, low, high = ([rate["observed"][part] for rate in rates] for part in ("value", "low", "high"))
        axes.plot(nominal, value, marker=".", **style)
        if name == first:
            axes.fill_between(nominal, low, high, alpha=0.15, color=style["color"], lw=0, label=f"{name}, interval")
    axes.plot([0, 0.5], [0, 0.5], color="0.4", lw=0.8, label="as asked for")
    axes.set(xlabel="nominal rate", ylabel="share of healthy slices marked", xlim=(0, 0.52), ylim=(-0.02, 1.02))
    _legend_beside(figure, axes)
    axes.grid(alpha=0.3)
    return figure


def _examples(evaluation: Evaluation, kind: str) -> Any:
    """Rows of slices, best and worst by image level AUROC of the first method: input, reconstruction, score map."""
    method = evaluation.outcome.methods[0].name
    results = evaluation.outcome.results[method]
    numbers = [n for n in evaluation.numbers(kind) if results[n].image_auroc is not None]
    ranked = sorted(numbers, key=lambda n: -(results[n].image_auroc or 0.0))
    half = min(EXAMPLES, (len(ranked) + 1) // 2)
    shown = [(n, "best") for n in ranked[:half]]
    shown += [(n, "worst") for n in ranked[half:][-half:]]
    height, width = evaluation.study.grid.shape
    title = f"{kind}, {method}: best and worst slices"
    figure, panels = _figure(3, max(1, len(shown)), size=3.0, title=title, aspect=height / width)
    for row, (number, word) in zip(panels, shown, strict=False):
        _example_row(row, evaluation, number, method, f"{word}, AUROC {results[number].image_auroc:.2f}")
    for axes in panels.flat:
        axes.axis("off")
    return figure


def _example_row(row: Any, evaluation: Evaluation, number: int, method: str, words: str) -> None:
    study, case = evaluation.study, evaluation.study.cases[number]
    reconstruction, score = evaluation.outcome.load_maps(number, method)
    body, lesion = study.body[number], study.lesion[number]
    background = case.lesion.background_hu if case.lesion else 0.0
    low, high = (-1100, 300) if background < -300 else (-160, 240)
    highest = max(float(np.percentile(score[body], 99.7)), 1e-12)
    pictures = (
        (study.hu[number], f"{case.file}\nslice {case.index}", "gray", low, high),
        (reconstruction, f"reconstruction\n{low} to {high} HU", "gray", low, high),
        (np.where(body, score, np.nan), f"{words}\nscore 0 to {highest:.3g}", "inferno", 0.0, highest),
    )
    for axes, (image, caption, colours, smallest, largest) in zip(row, pictures, strict=True):
        axes.imshow(image, cmap=colours, vmin=smallest, vmax=largest)
        axes.set_title(caption, fontsize=7)
        if lesion.any():
            axes.contour(lesion, [0.5], colors="cyan", linewidths=0.7)
    _scale_bar(row[0], lesion.shape, study.grid.pixel_mm)


def _scale_bar(axes: Any, shape: tuple[int, ...], pixel_mm: float) -> None:
    row, start = shape[0] - 6, 5
    axes.plot([start, start + SCALE_BAR_MM / pixel_mm], [row, row], color="white", lw=2)
    axes.text(start, row - 3, f"{SCALE_BAR_MM / 10:g} cm", color="white", fontsize=6)
