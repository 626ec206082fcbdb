"""`klip-engine info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from klip_engine.cli.running import IsCancelled, run
from klip_engine.console import ProgressStyle, Reporter


def info(
    what: Annotated[str, typer.Argument(metavar="INPUT|PRIOR", help="A CT, projections, or a prior.")],
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE.png", help="Draw the geometry of projections.")
    ] = None,
) -> None:
    """Say what was understood of a CT or of projections, or what a prior is."""

    def work(reporter: Reporter, cancelled: IsCancelled) -> None:
        from klip_engine.describe import describe

        print(json.dumps(describe(what, picture=picture), indent=2))

    run(work, ProgressStyle.NONE)
