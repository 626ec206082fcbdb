"""`klip-engine info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from klip_engine.cli.options import Item, Stack
from klip_engine.cli.running import IsCancelled, run
from klip_engine.console import ProgressStyle, Reporter, text_table


def info(
    what: Annotated[str, typer.Argument(metavar="INPUT|PRIOR", help="A CT, projections, or a prior.")],
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE.png", help="Draw the geometry of projections.")
    ] = None,
    item: Item = None,
    stack: Stack = None,
) -> None:
    """Say what was understood of a CT (of DICOM: which series, and why) or of projections, or what a prior is."""

    def work(reporter: Reporter, cancelled: IsCancelled) -> None:
        from klip_engine.describe import describe

        print(json.dumps(describe(what, _print_series, picture=picture, item=item, stack=stack), indent=2))

    run(work, ProgressStyle.NONE)


def _print_series(rows: list[dict[str, Any]]) -> None:
    """The table of series for people, on standard error; standard output is JSON."""
    if len(rows) > 1:
        columns = ("number", "series", "slices", "mm apart", "plane", "kernel", "verdict")
        typer.echo(text_table(columns, [_cells(row) for row in rows]), err=True)


def _cells(row: dict[str, Any]) -> list[str]:
    values = [row[key] for key in ("number", "series", "slices", "spacing_mm", "plane", "kernel")]
    verdict = "read" if row["chosen"] else row["reason"]
    return ["-" if value is None else str(value) for value in values] + [verdict]
