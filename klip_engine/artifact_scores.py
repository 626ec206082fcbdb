"""Scores artifacts of the published pipeline by its own recipe: maps, AUROC per image and per dataset, pictures."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from klip_engine.detection import NOTICE
from klip_engine.errors import InputError, UsageError
from klip_engine.files import write_file
from klip_engine.io.artifacts import Artifact, open_artifact
from klip_engine.io.atomic import ResultKind, results_folder
from klip_engine.io.masks import read_masks
from klip_engine.io.score_picture import score_picture
from klip_engine.scoring.metrics import dataset_level_auroc, image_level_auroc, touched_blocks
from klip_engine.scoring.published import RunningScore, check_window
from klip_engine.slices import Watch
from klip_engine.version import __version__
from klip_engine.volume import BoolArray, FloatArray
from klip_engine.words import counted

SCORES = ResultKind("scores.json", "klip-scores/1", frozenset({"maps.npz", "pictures"}))


@dataclass(frozen=True)
class ScoreJob:
    """What to score and how.

    artifacts, healthy: files; window: kept steps [first, last), None for all of them; block: side in pixels of the
    adjacent square blocks; masks: files with the lesions of `artifacts` in their order, each one mask or a stack;
    body: a file with one mask for all artifacts, or a stack for `artifacts` in their order.
    """

    artifacts: tuple[Path, ...]
    healthy: tuple[Path, ...] = ()
    window: tuple[int, int] | None = None
    block: int = 1
    masks: tuple[Path, ...] = ()
    body: Path | None = None


@dataclass(frozen=True)
class ScoredArtifact:
    """The map of one artifact, [height / block, width / block] float32, and what follows from it.

    image_auroc: over the blocks that touch the body; None for healthy artifacts, empty masks and where there is
    no mask; body: the name of the file the body was taken from, or what else it is.
    """

    name: str
    artifact: Artifact
    healthy: bool
    window: tuple[int, int]
    map: FloatArray
    mask: BoolArray | None
    image_auroc: float | None
    body: str

    @property
    def score(self) -> float:
        """The highest block: the published score of an image."""
        return float(self.map.max())


@dataclass(frozen=True)
class ArtifactScores:
    """All maps of a job; image_auroc: mean over the artifacts with a lesion; dataset_auroc: against the healthy."""

    job: ScoreJob
    items: tuple[ScoredArtifact, ...]

    @property
    def image_auroc(self) -> float | None:
        """The published image-level figure."""
        values = [item.image_auroc for item in self.items if item.image_auroc is not None]
        return float(np.mean(values)) if values else None

    @property
    def dataset_auroc(self) -> float | None:
        """The published dataset-level figure: highest blocks of all artifacts against those of the healthy ones."""
        groups = [[item.map for item in self.items if item.healthy is healthy] for healthy in (True, False)]
        return dataset_level_auroc(*groups) if all(groups) else None


def find_artifacts(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Files as they are; of a folder the .npz files in it, by name, or those in its folder `updates` (a detection).

    Raises InputError for a folder without any.
    """
    found: list[Path] = []
    for path in paths:
        folder = path / "updates" if (path / "updates").is_dir() else path
        files = sorted(folder.glob("*.npz")) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path} holds no .npz file; name artifacts or a folder of them")
        found += files
    return tuple(found)


def score_artifacts(job: ScoreJob, watch: Watch | None = None) -> ArtifactScores:
    """Score all artifacts of a job; memory is that of one step and the maps.

    Raises InputError for a bad file, UsageError for a window or block that does not fit; writes nothing.
    """
    watch = watch or Watch()
    artifacts = [open_artifact(path) for path in (*job.artifacts, *job.healthy)]
    altered = artifacts[: len(job.artifacts)]
    masks = _masks(job.masks, altered)
    bodies = _bodies(job.body, artifacts, len(altered))
    windows = [job.window or (0, artifact.shape[0]) for artifact in artifacts]
    for artifact, window in zip(artifacts, windows, strict=True):
        _check(artifact, job.block, window)
    names = _names([artifact.path for artifact in artifacts])
    total = sum(last - first for first, last in windows)
    items: list[ScoredArtifact] = []
    done = 0
    for number, (artifact, window) in enumerate(zip(artifacts, windows, strict=True)):
        running = RunningScore(job.block, (0, window[1] - window[0]), samples=artifact.shape[1])
        for update in artifact.updates(*window):
            watch.check()
            with np.errstate(over="ignore"):  # a score that overflows is infinite, and refused below
                running.add(update)
            done += 1
            watch.tell("scoring", done, total)
        healthy = number >= len(altered)
        score_map = running.maps()[0]
        if not np.isfinite(score_map).all():
            raise InputError(
                f"{artifact.path}: the squares of its updates are beyond float32, so that it has no score; run its "
                "sampler again"
            )
        mask = masks[number] if masks and not healthy else None
        body, source = bodies[number]
        auroc = None if mask is None or not mask.any() else _image_auroc(score_map, mask, body, job.block, artifact)
        items.append(ScoredArtifact(names[number], artifact, healthy, window, score_map, mask, auroc, source))
    return ArtifactScores(job, tuple(items))


def write_scores(scores: ArtifactScores, folder: Path) -> None:
    """Write `folder` completely or not at all: scores.json, maps.npz (float32, by name), pictures/NAME.png.

    The maps are no volumes: artifacts do not say where their pixels lie, so a format with a geometry would claim
    one. Raises UsageError when the folder holds something else, ResourceError when it cannot be written.
    """
    top = max(item.score for item in scores.items) or 1.0
    with results_folder(folder, SCORES) as temporary:
        write_file(temporary / "maps.npz", _npz({item.name: item.map for item in scores.items}))
        for item in scores.items:
            write_file(temporary / "pictures" / f"{item.name}.png", _picture(item, top, scores.job.block))
        text = json.dumps(scores_document(scores), indent=1, allow_nan=False) + "\n"
        write_file(temporary / SCORES.file, text.encode())


def scores_document(scores: ArtifactScores) -> dict[str, Any]:
    """The content of scores.json; files by their names alone, for folders are often called after patients."""
    return {
        "schema": SCORES.schema,
        "engine": __version__,
        "notice": NOTICE,
        "definition": "mean over window and samples of the sum over channels and block of the squared normalised "
        "update (arXiv 2605.31596, without the factor 1/2); an artifact's score is its highest block",
        "block": scores.job.block,
        "image_auroc": scores.image_auroc,
        "dataset_auroc": scores.dataset_auroc,
        "counts": {
            "artifacts": len(scores.job.artifacts),
            "healthy": len(scores.job.healthy),
            "with_lesion": sum(item.image_auroc is not None for item in scores.items),
        },
        "artifacts": [
            {
                "name": item.name,
                "file": item.artifact.path.name,
                "healthy": item.healthy,
                "score": item.score,
                "highest_block": [int(i) for i in np.unravel_index(item.map.argmax(), item.map.shape)],
                "image_auroc": item.image_auroc,
                "body": item.body,
                "window": list(item.window),
                "shape": list(item.artifact.shape),
            }
            for item in scores.items
        ],
    }


def table_rows(scores: ArtifactScores, most: int = 20) -> list[list[str]]:
    """Name, score, image-level AUROC and group of the highest artifacts, for people."""
    ordered = sorted(scores.items, key=lambda item: -item.score)[:most]
    return [
        [
            item.name,
            f"{item.score:.4g}",
            "" if item.image_auroc is None else f"{item.image_auroc:.3f}",
            "healthy" if item.healthy else "",
        ]
        for item in ordered
    ]


def _masks(paths: Sequence[Path], artifacts: Sequence[Artifact]) -> list[BoolArray]:
    """One mask per artifact, or none at all."""
    masks = [(path, mask) for path in paths for mask in read_masks(path, _most_pixels(artifacts))]
    if masks and len(masks) != len(artifacts):
        numbers = f"{counted(len(masks), 'mask')} for {counted(len(artifacts), 'artifact')}"
        raise InputError(f"{numbers}: give one each, in the same order")
    for (path, mask), artifact in zip(masks, artifacts, strict=False):
        _check_shape(mask, path, artifact)
    if masks and not any(mask.any() for _, mask in masks):
        raise InputError(f"no pixel is marked in {masks[0][0]}; healthy images belong to --healthy")
    return [mask for _, mask in masks]


def _bodies(path: Path | None, artifacts: Sequence[Artifact], altered: int) -> list[tuple[BoolArray, str]]:
    """The body of every artifact and where it was taken from."""
    given = None if path is None else read_masks(path, _most_pixels(artifacts))
    if given is not None and len(given) not in (1, altered):
        raise InputError(
            f"{path} holds {len(given)} bodies; give one for all or one for each of {altered} artifacts"
        )
    bodies: list[tuple[BoolArray, str]] = []
    for number, artifact in enumerate(artifacts):
        if given is not None and path is not None and (len(given) == 1 or number < altered):
            body = given[number if len(given) > 1 else 0]
            _check_shape(body, path, artifact)
            bodies.append((body, path.name))
        elif artifact.body is not None:
            bodies.append((artifact.body, "the artifact"))
        else:
            bodies.append((np.ones(artifact.shape[-2:], dtype=bool), "the whole image"))
    return bodies


def _most_pixels(artifacts: Sequence[Artifact]) -> int:
    """Pixels that a file of masks can have; small files are read anyway, to say more exactly what is wrong."""
    return max(2**22, len(artifacts) * max(artifact.shape[-2] * artifact.shape[-1] for artifact in artifacts))


def _check_shape(mask: BoolArray, path: Path, artifact: Artifact) -> None:
    if mask.shape != artifact.shape[-2:]:
        height, width = artifact.shape[-2:]
        raise InputError(f"{path} is {mask.shape[0]} x {mask.shape[1]}, {artifact.path} is {height} x {width}")


def _check(artifact: Artifact, block: int, window: tuple[int, int]) -> None:
    """Raise UsageError, with the file, where block or window do not fit: before anything is read."""
    try:
        touched_blocks(np.zeros(artifact.shape[-2:], dtype=bool), block)
        check_window(window, artifact.shape[0])
    except UsageError as error:
        raise UsageError(f"{artifact.path}: {error}") from error


def _image_auroc(score_map: FloatArray, mask: BoolArray, body: BoolArray, block: int, artifact: Artifact) -> float:
    try:
        return image_level_auroc(score_map, touched_blocks(mask, block), touched_blocks(body, block))
    except UsageError as error:
        raise InputError(
            f"{artifact.path}: within the body no block of {block} pixels touches the mask, or every one does"
        ) from error


def _names(paths: Sequence[Path]) -> list[str]:
    """Names of maps and pictures: those of the files, all numbered where two files share one."""
    stems = [path.stem for path in paths]
    if len({stem.lower() for stem in stems}) == len(stems):
        return stems
    return [f"{number:04d}-{stem}" for number, stem in enumerate(stems)]


def _npz(arrays: dict[str, FloatArray]) -> bytes:
    """An .npz file; unlike numpy.savez it takes any name, `file` too."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return stream.getvalue()


def _picture(item: ScoredArtifact, top: float, block: int) -> bytes:
    first, last = item.window
    notes = [
        f"blocks of {block} x {block} pixels, kept steps {first} to {last - 1}; highest block {item.score:.4g}"
    ]
    if item.image_auroc is not None:
        notes[0] += f"; AUROC {item.image_auroc:.3f}"
    notes.append("research software, not for diagnosis or treatment")
    return score_picture(item.map, top, title=item.name, notes=notes, block=block, mask=item.mask)
