"""`klip-engine simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from klip_engine.cli.options import Progress
from klip_engine.cli.running import IsCancelled, run, stop_if
from klip_engine.console import ProgressStyle, Reporter
from klip_engine.version import __version__


def simulate(
    volume: Annotated[Path, typer.Argument(metavar="VOLUME", help="A CT volume file or DICOM series.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The file of projections to write.")],
    format: Annotated[
        str | None,
        typer.Option("--format", help="klip, ct-pd, fips, lodopab or rtk; default: by the name of FILE."),
    ] = None,
    geometry: Annotated[
        str, typer.Option(help="parallel, fan-flat or fan-curved: every slice at rest; helical: a moving table.")
    ] = "fan-curved",
    views: Annotated[int, typer.Option(help="Views of a slice, or of a turn of the helix.")] = 360,
    arc: Annotated[
        float | None,
        typer.Option(metavar="DEG", help="Over which; default: 360, parallel 180, helix what the slices need."),
    ] = None,
    start: Annotated[float, typer.Option(metavar="DEG", help="Angle of the first view; 0: source in front.")] = 0.0,
    detector_bins: Annotated[int, typer.Option(help="Detector columns.")] = 736,
    bin_mm: Annotated[
        float | None, typer.Option(help="Width of a column on the detector; default: 0.70 mm at the isocentre.")
    ] = None,
    offset_bins: Annotated[float, typer.Option(help="Shift of the detector; 0.25: quarter-detector shift.")] = 0.0,
    source_isocentre: Annotated[float, typer.Option(metavar="MM", help="Source to axis of rotation.")] = 595.0,
    source_detector: Annotated[float, typer.Option(metavar="MM", help="Source to detector.")] = 1085.6,
    detector_rows: Annotated[int, typer.Option(help="Detector rows of a helix.")] = 16,
    row_mm: Annotated[
        float, typer.Option(help="Height of a row on the detector; the default is 1.2 mm at the isocentre.")
    ] = 2.1894,
    pitch: Annotated[float, typer.Option(help="Table feed per turn over the rows' height at the isocentre.")] = 1.0,
    dose: Annotated[
        str,
        typer.Option(
            help="standard, low, very-low (1e6, 2.5e5, 1e5 photons a ray in air), lodopab (4096) or none: no noise."
        ),
    ] = "standard",
    kvp: Annotated[
        float | None, typer.Option(metavar="KV", help="A polychromatic beam of this tube voltage.")
    ] = None,
    uncorrected: Annotated[
        bool, typer.Option("--no-water-correction", help="Leave water cupped under a polychromatic beam.")
    ] = False,
    scatter: Annotated[
        float, typer.Option(metavar="FRACTION", help="Scatter over the median signal behind the body.")
    ] = 0.0,
    dead_pixels: Annotated[
        float, typer.Option(metavar="FRACTION", help="Detector elements known to be dead.")
    ] = 0.0,
    drifting_pixels: Annotated[
        float, typer.Option(metavar="FRACTION", help="Elements with a wrong gain that nobody knows of.")
    ] = 0.0,
    angle_jitter: Annotated[
        float, typer.Option(metavar="DEG", help="Deviation of each view's true angle from the written one.")
    ] = 0.0,
    angle_step_error: Annotated[
        float, typer.Option(metavar="DEG", help="By how much each step is longer than written.")
    ] = 0.0,
    slices: Annotated[
        str | None, typer.Option(metavar="A:B", help="Only axial slices A up to, not including, B, from 0.")
    ] = None,
    slice_mm: Annotated[
        float | None, typer.Option(help="Thickness of measured slices; default: the volume's.")
    ] = None,
    rays: Annotated[str, typer.Option(help="exact, or joseph: the reconstruction's own projector.")] = "exact",
    sub_rays: Annotated[
        int | None,
        typer.Option(help="Rays that make up one, over bin, focal spot and view step; default: 4, helix 2."),
    ] = None,
    spot_mm: Annotated[float, typer.Option(help="Width of the focal spot.")] = 1.0,
    pixel_mm: Annotated[float, typer.Option(help="Larger pixels of the volume are divided.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of noise and faults.")] = 0,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Simulate what a scanner would have measured of a CT volume, and write its projections."""

    def work(reporter: Reporter, cancelled: IsCancelled) -> None:
        from klip_engine.detection import NOTICE
        from klip_engine.errors import UsageError
        from klip_engine.io import read_ct
        from klip_engine.io.projections import check_writable, write_projections
        from klip_engine.projections import Projections
        from klip_engine.simulation import SimulationSettings, simulate

        settings = SimulationSettings(
            geometry=geometry,
            views=views,
            arc_deg=arc,
            start_deg=start,
            detector_bins=detector_bins,
            bin_mm=bin_mm,
            offset_bins=offset_bins,
            source_isocentre_mm=source_isocentre,
            source_detector_mm=source_detector,
            detector_rows=detector_rows,
            row_mm=row_mm,
            pitch=pitch,
            dose=dose,
            kvp=kvp,
            water_correction=not uncorrected,
            scatter=scatter,
            dead_pixels=dead_pixels,
            drifting_pixels=drifting_pixels,
            angle_jitter_deg=angle_jitter,
            angle_step_error_deg=angle_step_error,
            slices=_range(slices),
            slice_mm=slice_mm,
            rays=rays,
            sub_rays=sub_rays,
            spot_mm=spot_mm,
            pixel_mm=pixel_mm,
            seed=seed,
        )
        if out.exists() and volume.exists() and out.samefile(volume):
            raise UsageError(f"{out} is the volume itself, which the projections would replace: name another file")
        check_writable(out, format)
        loaded = read_ct(volume)
        reporter.start(version=__version__, geometry=geometry, dose=dose)

        def tell(stage: str, done: int, total: int) -> None:
            stop_if(cancelled)
            reporter.progress(stage, done, total)

        def look_ahead(planned: Projections) -> None:
            check_writable(out, format, planned)
            for notice in planned.notices:
                reporter.warning(notice)

        projections = simulate(loaded.volume, settings, tell, look_ahead)
        stop_if(cancelled)
        lost = write_projections(out, projections, format, provenance={"simulation": settings.to_dict()})
        views_taken, detector = projections.trajectory.views, projections.detector
        lines = [f"{views_taken} views of {detector.rows} x {detector.columns} elements written to {out}"]
        lines += [f"Notice: {notice}" for notice in (*loaded.notices, *lost)]
        reporter.done("\n".join([*lines, NOTICE]), out=str(out), views=views_taken)

    run(work, progress)


def _range(text: str | None) -> tuple[int, int] | None:
    """A:B as numbers."""
    from klip_engine.errors import UsageError

    if text is None:
        return None
    try:
        first, last = (int(part) for part in text.split(":"))
    except ValueError as error:
        raise UsageError(f"'{text}' is no range of slices; give A:B, for example 10:20") from error
    return first, last
