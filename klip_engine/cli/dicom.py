"""`klip-engine export`, and what `detect --dicom` shares with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from klip_engine.cli.options import Progress
from klip_engine.cli.running import IsCancelled, run, stop_if
from klip_engine.console import ProgressStyle, Reporter

if TYPE_CHECKING:
    from klip_engine.io import Loaded
    from klip_engine.io.dicom_results import DicomObject, WrittenResults


def export(
    results: Annotated[Path, typer.Argument(metavar="OUT", help="Folder with the results of `detect`.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the DICOM files.")],
    source: Annotated[
        Path, typer.Option(help="The DICOM series the results were made from: what `detect` was given.")
    ],
    objects: Annotated[str, typer.Option(metavar="OBJECTS", help="all, or some of seg,sr,pm,sc,labelmap.")] = "all",
    labelmap: Annotated[
        bool, typer.Option("--labelmap", help="Also a compact label map, which many PACS refuse.")
    ] = False,
    false_alarms: Annotated[
        float | None, typer.Option(help="Mark at another accepted rate of false alarms, without a new run.")
    ] = None,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Write results as DICOM: segmentation, structured report, parametric map and a summary picture."""

    def work(reporter: Reporter, cancelled: IsCancelled) -> None:
        from klip_engine.detection import NOTICE
        from klip_engine.io import read_ct
        from klip_engine.io.dicom_results import read_written, series_of, write_dicom_results
        from klip_engine.words import counted

        chosen = dicom_objects(f"{objects},labelmap" if labelmap else objects)
        written = read_written(results)
        series = series_of(written)
        notices: tuple[str, ...] = ()
        if false_alarms is not None:
            written, notices = _at(written, results, false_alarms)
        reporter.start(results=str(results), objects=",".join(chosen))
        loaded = read_ct(source, series=series)
        stop_if(cancelled)
        files = write_dicom_results(written, loaded, out, chosen)
        names = ", ".join(path.name for path in files)
        text = f"{counted(len(files), 'DICOM object')} written to {out}: {names}"
        facts = {"files": [str(path) for path in files], "findings": len(written.findings)}
        said = [text, *(f"Notice: {notice}" for notice in notices), NOTICE]
        reporter.done("\n".join(said), out=str(out), **facts)

    run(work, progress)


def dicom_objects(words: str | None) -> tuple[DicomObject, ...]:
    """The objects a user asks for, none without words; raises UsageError where they cannot be made here."""
    if words is None:
        return ()
    from klip_engine.io.dicom_results import parse_objects, structured_reporting

    objects = parse_objects(words)
    structured_reporting()
    return objects


def dicom_writer(loaded: Loaded, objects: tuple[DicomObject, ...]) -> Callable[[Path], None]:
    """Writes the objects into the folder dicom/ of complete results.

    Raises UsageError or InputError at once, before anything long begins, where the input cannot be referred to.
    """
    from klip_engine.io.dicom_results import read_source, write_dicom_results

    read_source(loaded)

    def write(folder: Path) -> None:
        write_dicom_results(folder, loaded, folder / "dicom", objects)

    return write


def _at(written: WrittenResults, folder: Path, false_alarms: float) -> tuple[WrittenResults, tuple[str, ...]]:
    """The results as they would be with another rate of false alarms, and what to say about it."""
    from klip_engine.io.dicom_results import marked_again
    from klip_engine.saved import open_results

    marked = open_results(folder).at(false_alarms)
    again = marked_again(written, false_alarms, marked.threshold, marked.regions, marked.findings)
    return again, marked.notices
