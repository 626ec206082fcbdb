"""`klip-engine score`: saved normalised updates, by the published recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from klip_engine.cli.options import Progress
from klip_engine.cli.running import IsCancelled, run, stop_if
from klip_engine.console import ProgressStyle, Reporter, text_table
from klip_engine.version import __version__

if TYPE_CHECKING:
    from klip_engine.artifact_scores import ArtifactScores


def score(
    artifacts: Annotated[
        list[Path],
        typer.Argument(
            metavar="ARTIFACT...", help="Artifacts (.npz) of the published pipeline, or folders of them."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for maps, pictures and scores.")],
    window: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="START END", help="Kept steps from START up to, not including, END; default: all."),
    ] = None,
    block: Annotated[int, typer.Option(help="Side in pixels of the adjacent square blocks.", min=1)] = 1,
    mask: Annotated[
        list[Path] | None,
        typer.Option(help="Lesions of the artifacts, in their order: .npz, .npy or images, single or stacked."),
    ] = None,
    body: Annotated[Path | None, typer.Option(help="Body: one mask for all, or a stack of one each.")] = None,
    healthy: Annotated[
        list[Path] | None, typer.Option(help="Healthy artifacts, or folders of them, to compare with.")
    ] = None,
    progress: Progress = ProgressStyle.RICH,
) -> None:
    """Score saved normalised updates by the published recipe; see `detect --save-updates`."""

    def work(reporter: Reporter, cancelled: IsCancelled) -> None:
        from klip_engine.artifact_scores import SCORES, ScoreJob, find_artifacts, score_artifacts, write_scores
        from klip_engine.io import check_replaceable
        from klip_engine.slices import Watch

        check_replaceable(out, SCORES)
        job = ScoreJob(
            find_artifacts(artifacts), find_artifacts(healthy or ()), window, block, tuple(mask or ()), body
        )
        reporter.start(version=__version__, artifacts=len(job.artifacts), healthy=len(job.healthy), block=block)
        scores = score_artifacts(job, Watch(reporter.progress, cancelled))
        stop_if(cancelled)
        write_scores(scores, out)
        reporter.done(
            _summary(scores, out),
            out=str(out),
            scores={item.name: item.score for item in scores.items},
            image_auroc=scores.image_auroc,
            dataset_auroc=scores.dataset_auroc,
        )

    run(work, progress)


def _summary(scores: ArtifactScores, out: Path) -> str:
    from klip_engine.artifact_scores import table_rows
    from klip_engine.detection import NOTICE

    rows = table_rows(scores)
    lines = [text_table(["artifact", "highest block", "image AUROC", ""], rows)]
    if len(rows) < len(scores.items):
        lines.append(f"and {len(scores.items) - len(rows)} with lower scores")
    if scores.image_auroc is not None:
        lines.append(f"Image-level AUROC, mean over images: {scores.image_auroc:.3f}")
    if scores.dataset_auroc is not None:
        lines.append(f"Dataset-level AUROC, against the healthy artifacts: {scores.dataset_auroc:.3f}")
    lines += [f"Maps, pictures and scores.json are in {out}", NOTICE]
    return "\n".join(lines)
