"""How well scores tell lesions from healthy tissue: AUROC per image and per dataset, average precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from klip_engine.errors import UsageError

Floats = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def auroc(positive_scores: npt.ArrayLike, negative_scores: npt.ArrayLike) -> float:
    """The chance that a positive scores higher than a negative, ties counting half (Mann-Whitney).

    Both are flattened. Raises UsageError when one is empty or holds a NaN.
    """
    positive, negative = _scores(positive_scores, "positive"), np.sort(_scores(negative_scores, "negative"))
    below = np.searchsorted(negative, positive, side="left")
    not_above = np.searchsorted(negative, positive, side="right")
    return float((below + not_above).sum() / (2 * positive.size * negative.size))


def image_level_auroc(
    score_map: npt.ArrayLike, block_is_positive: npt.ArrayLike, body_blocks: npt.ArrayLike
) -> float:
    """AUROC over the blocks of one image that touch the body; the published figure is its mean over images.

    All three have the shape of the score map; block_is_positive: blocks with any pixel in the lesion (see
    `touched_blocks`). Raises UsageError when the shapes differ or the body holds no positive or no negative
    block.
    """
    score = np.asarray(score_map, dtype=np.float64)
    positive, body = np.asarray(block_is_positive, dtype=bool), np.asarray(body_blocks, dtype=bool)
    if not score.shape == positive.shape == body.shape:
        raise UsageError(f"Score map {score.shape}, positive blocks {positive.shape} and body {body.shape} differ.")
    return auroc(score[positive & body], score[~positive & body])


def dataset_level_auroc(
    healthy_maps: Sequence[npt.ArrayLike],
    anomalous_maps: Sequence[npt.ArrayLike],
    *,
    healthy_bodies: Sequence[npt.ArrayLike] | None = None,
    anomalous_bodies: Sequence[npt.ArrayLike] | None = None,
) -> float:
    """AUROC of whole images, each scored by its highest block.

    The published figure takes all blocks; with bodies (one mask of blocks per map) only the body's count.
    Raises UsageError when a group is empty, a map has no block left or a shape does not match.
    """
    return auroc(_maxima(anomalous_maps, anomalous_bodies), _maxima(healthy_maps, healthy_bodies))


def average_precision(positive_scores: npt.ArrayLike, negative_scores: npt.ArrayLike) -> float:
    """Mean precision over the positives, each at the threshold of its own score (ties share one threshold).

    The area under the precision-recall curve as a step function, without interpolation. Raises UsageError
    when one group is empty or holds a NaN.
    """
    positive = np.sort(_scores(positive_scores, "positive"))
    negative = np.sort(_scores(negative_scores, "negative"))
    true_found = positive.size - np.searchsorted(positive, positive, side="left")
    false_found = negative.size - np.searchsorted(negative, positive, side="left")
    return float(np.mean(true_found / (true_found + false_found)))


def touched_blocks(mask: npt.ArrayLike, block: int) -> BoolArray:
    """Blocks of block x block pixels with any pixel in the mask: [..., H, W] to [..., H / block, W / block].

    Raises UsageError when the block does not divide the image.
    """
    pixels = np.asarray(mask, dtype=bool)
    *leading, height, width = pixels.shape
    if block < 1 or height % block or width % block:
        raise UsageError(f"Blocks of {block} pixels do not divide an image of {height} x {width}.")
    tiles = pixels.reshape(*leading, height // block, block, width // block, block)
    touched: BoolArray = np.asarray(tiles.any(axis=(-3, -1)))
    return touched


def _maxima(maps: Sequence[npt.ArrayLike], bodies: Sequence[npt.ArrayLike] | None) -> list[float]:
    if bodies is not None and len(bodies) != len(maps):
        raise UsageError(f"{len(maps)} score maps need as many bodies, not {len(bodies)}.")
    highest = []
    for index, score_map in enumerate(maps):
        score = np.asarray(score_map, dtype=np.float64)
        body = np.ones(score.shape, dtype=bool) if bodies is None else np.asarray(bodies[index], dtype=bool)
        if body.shape != score.shape or not body.any():
            raise UsageError(f"Score map {index} {score.shape} needs a body of that shape that is not empty.")
        highest.append(float(score[body].max()))
    return highest


def _scores(values: npt.ArrayLike, group: str) -> Floats:
    scores = np.asarray(values, dtype=np.float64).ravel()
    if not scores.size or np.isnan(scores).any():
        raise UsageError(f"The {group} scores are empty or hold a NaN: there is nothing to compare.")
    return scores
