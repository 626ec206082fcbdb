"""`klip-engine detect` and `demo`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from klip_engine.cli.dicom import dicom_objects, dicom_writer
from klip_engine.cli.options import Device, Item, Prior, Progress, Seed, SettingsOptions, Stack, takes_settings
from klip_engine.cli.running import IsCancelled, run, start_facts, stop_if
from klip_engine.console import ProgressStyle, Reporter
from klip_engine.words import counted, slices_from_to

if TYPE_CHECKING:
    from klip_engine.detection import Detection, Finding
    from klip_engine.io import Loaded


@takes_settings()
def detect(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="Volume file, DICOM (file, folder, zip, DICOMDIR, list), CT projections or picture.",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")],
    prior: Prior = "default",
    *,
    options: SettingsOptions,
    series: Annotated[
        str | None, typer.Option(help="SeriesInstanceUID, number or hash (see info), where there are several.")
    ] = None,
    item: Item = None,
    stack: Stack = None,
    dicom: Annotated[
        str | None,
        typer.Option(
            metavar="OBJECTS",
            help="Results as DICOM too, in OUT/dicom: all, or some of seg,sr,pm,sc,labelmap. For DICOM input.",
        ),
    ] = None,
    save_updates: Annotated[
        bool, typer.Option("--save-updates", help="Keep the normalised updates of every slice, in OUT/updates.")
    ] = False,
    trust_geometry: Annotated[
        bool, typer.Option("--trust-geometry", help="Take projections although they contradict their geometry.")
    ] = False,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Find suspicious regions in a CT, its projections or a photograph; write maps, table and report."""

    def work(reporter: Reporter, cancelled: IsCancelled) -> None:
        from klip_engine.io import check_replaceable, scratch_folder, write_results
        from klip_engine.pipeline import detect, read_input
        from klip_engine.priors import load_prior

        settings = options.choose()
        check_replaceable(out)
        objects = dicom_objects(dicom)
        bundle = load_prior(prior)
        loaded = read_input(Path(source), bundle, series=series, item=item, stack=stack)
        extras = [dicom_writer(loaded, objects)] if objects else []
        reporter.start(**start_facts(prior, settings) | _extent(loaded))
        watch: dict[str, Any] = {"progress": reporter.progress, "cancelled": cancelled, "warn": reporter.warning}
        with scratch_folder(out) if save_updates else nullcontext() as scratch:
            detection = detect(
                loaded, bundle, settings, **watch, save_updates=scratch, trust_geometry=trust_geometry
            )
            stop_if(cancelled)
            write_results(detection, out, extras=[*([_keep_updates(scratch)] if scratch else []), *extras])
        reporter.done(_summary(detection, out), **_done_facts(detection, out))

    run(work, progress)


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path("klip-demo"),
    device: Device = None,
    seed: Seed = None,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Run the main job on the CT that comes with the engine; one lesion was inserted into it."""

    def work(reporter: Reporter, cancelled: IsCancelled) -> None:
        from klip_engine.demo import demo_ct, demo_verdict
        from klip_engine.io import check_replaceable, read_ct, write_results
        from klip_engine.pipeline import detect
        from klip_engine.presets import choose_settings

        settings = choose_settings(device=device, seed=seed)
        check_replaceable(out)
        loaded = read_ct(demo_ct())
        reporter.start(**start_facts("default", settings), slices=loaded.volume.geometry.size[2])
        detection = detect(loaded, "default", settings, progress=reporter.progress, cancelled=cancelled)
        stop_if(cancelled)
        write_results(detection, out)
        verdict = demo_verdict(detection)
        reporter.done(f"{_summary(detection, out)}\n{verdict}", **_done_facts(detection, out), verdict=verdict)

    run(work, progress)


def _extent(loaded: Loaded) -> dict[str, Any]:
    """How much there is to do."""
    from klip_engine.projections import Projections

    if isinstance(loaded, Projections):
        return {"operator": "measured", "views": loaded.trajectory.views}
    return {"slices": loaded.description["slices"]}


def _keep_updates(scratch: Path) -> Callable[[Path], None]:
    """Moves the updates, complete by then, into the results."""

    def move(results: Path) -> None:
        scratch.rename(results / "updates")

    return move


def _done_facts(detection: Detection, out: Path) -> dict[str, Any]:
    return {"out": str(out), "findings": len(detection.findings), "timing": detection.timing}


def _summary(detection: Detection, out: Path) -> str:
    from klip_engine.detection import NOTICE

    where = "the photograph" if _of_photograph(detection) else counted(len(detection.slices), "slice")
    lines = [f"{counted(len(detection.findings), 'suspicious region')} in {where}."]
    lines += [_finding_line(finding, detection) for finding in detection.findings[:5]]
    if len(detection.findings) > 5:
        lines.append(f"  and {counted(len(detection.findings) - 5, 'weaker one')}")
    lines += [f"Notice: {notice}" for notice in detection.notices]
    timing = detection.timing
    lines.append(
        f"{timing['total_s']:.0f} s, {timing['network_evaluations']} network evaluations. "
        f"Open {out / 'report.html'}"
    )
    lines.append(NOTICE)
    return "\n".join(lines)


def _of_photograph(detection: Detection) -> bool:
    from klip_engine.detection import PhotographDetection

    return isinstance(detection, PhotographDetection)


def _finding_line(finding: Finding, detection: Detection) -> str:
    x, y, z = finding.centroid_lps_mm
    words = f"  {finding.label}: score {finding.score:.3g} (p {finding.p_value:.3g}), "
    if _of_photograph(detection):
        return words + f"{1000 * finding.volume_ml:.0f} pixels around column {x:.0f}, row {y:.0f}"
    return (
        words
        + f"{finding.volume_ml:.2f} ml, {slices_from_to(*finding.slice_range)}, LPS ({x:.0f}, {y:.0f}, {z:.0f}) mm"
    )
