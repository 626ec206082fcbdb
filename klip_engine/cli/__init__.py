"""The command line: one command per task, no logic of its own. The contract is docs/cli.md."""

from __future__ import annotations

from typing import Annotated

import typer

from klip_engine.cli import artifacts, detection, dicom, evaluation, info, priors, serve, simulation
from klip_engine.version import __version__

app = typer.Typer(
    name="klip-engine",
    help="Finds what does not belong in a CT scan. Research software, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(detection.detect)
app.command()(detection.demo)
app.command()(priors.train)
app.command()(priors.calibrate)
app.command()(evaluation.evaluate)
app.command()(evaluation.tune)
app.command("import")(priors.import_weights)
app.command()(artifacts.score)
app.command()(dicom.export)
app.command()(simulation.simulate)
app.command()(info.info)
app.command()(serve.serve)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Finds what does not belong in a CT scan. Research software, not a medical device."""
    if show:
        print(f"klip-engine {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point; leaves with the exit code of the contract (docs/cli.md)."""
    app()
