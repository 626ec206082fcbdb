"""How well scores tell lesions from healthy tissue: AUROC per image and per dataset, average precision, FROC."""

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


def roc_curve(positive_scores: npt.ArrayLike, negative_scores: npt.ArrayLike) -> tuple[Floats, Floats]:
    """False and true positive rates at every threshold, from none to all marked; both start at 0 and end at 1.

    The area under the polygon through these points is `auroc`. Raises UsageError as that does.
    """
    positive, negative = (np.sort(_scores(p, name)) for p, name in (
        (positive_scores, "positive"), (negative_scores, "negative")))  # fmt: skip
    thresholds = np.unique(np.concatenate([positive, negative]))[::-1]
    true_rate = 1 - np.searchsorted(positive, thresholds, side="left") / positive.size
    false_rate = 1 - np.searchsorted(negative, thresholds, side="left") / negative.size
    return np.concatenate([[0.0], false_rate]), np.concatenate([[0.0], true_rate])


def peaks(
    score_map: npt.ArrayLike, body: npt.ArrayLike, radius: float, limit: int = 50
) -> tuple[npt.NDArray[np.int64], Floats]:
    """The places a score map marks: its highest pixels in the body, no two within `radius` pixels of each other.

    Non-maximum suppression: the highest pixel of the body is a peak, all pixels at most `radius` from it are
    taken out, and so on (equal pixels in raster order), at most `limit` times. Returns positions [n, 2] as (row,
    column) and scores [n], highest first. Raises UsageError when the shapes differ.
    """
    score, inside = np.asarray(score_map, dtype=np.float64), np.asarray(body, dtype=bool)
    if score.ndim != 2 or score.shape != inside.shape:
        raise UsageError(f"Score map {score.shape} and body {inside.shape} differ or are no image.")
    left = inside & np.isfinite(score)
    rows, columns = np.nonzero(left)
    order = np.argsort(-score[rows, columns], kind="stable")
    reach = int(radius)
    found: list[tuple[int, int]] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if not left[row, column]:
            continue
        found.append((row, column))
        if len(found) == limit:
            break
        top, start = max(0, row - reach), max(0, column - reach)
        part = left[top : row + reach + 1, start : column + reach + 1]
        y, x = np.ogrid[top - row : top - row + part.shape[0], start - column : start - column + part.shape[1]]
        part[y * y + x * x <= radius * radius] = False
    positions = np.array(found, dtype=np.int64).reshape(-1, 2)
    return positions, score[positions[:, 0], positions[:, 1]]


def froc_sensitivity(
    lesion_scores: npt.ArrayLike, false_scores: npt.ArrayLike, healthy_slices: int, rates: Sequence[float]
) -> list[float]:
    """Share of lesions found where at most `rate` false regions are marked per healthy slice, for each rate.

    lesion_scores: for each lesion the highest score of a marked place on it, -inf where none is; false_scores:
    of all marked places on the healthy slices together. A rate allows floor(rate * healthy_slices) false
    regions; a lesion is found when it scores above every false region that is not allowed.

    The free-response operating characteristic of Bunch, Hamilton, Sanderson and Simmons, J. Appl. Photogr. Eng.
    4, 1978, 166-171, with false regions counted on slices without lesion. Raises UsageError when there is no
    lesion or no healthy slice, for a NaN or a negative rate.
    """
    lesions = _scores(lesion_scores, "lesion")
    false = np.sort(np.asarray(false_scores, dtype=np.float64).ravel())[::-1]
    if np.isnan(false).any() or healthy_slices < 1 or any(not rate >= 0 for rate in rates):
        raise UsageError("An FROC needs a healthy slice, false scores without NaN and rates of at least 0.")
    found = []
    for rate in rates:
        allowed = int(np.floor(rate * healthy_slices + 1e-9))
        limit = false[allowed] if allowed < false.size else -np.inf
        found.append(float((lesions > limit).mean()))
    return found


def touching_blocks(mask: npt.ArrayLike, block: int) -> BoolArray:
    """Sliding blocks of block x block pixels (odd), named by their middle, with any pixel in the mask [h, w].

    Raises UsageError for an even block.
    """
    pixels = np.asarray(mask, dtype=bool)
    if block < 1 or block % 2 == 0:
        raise UsageError(f"A sliding block has an odd size, not {block}.")
    out = pixels
    for axis in (0, 1):
        padding = [(block // 2, block // 2) if a == axis else (0, 0) for a in (0, 1)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(out, padding), block, axis=axis)
        out = np.asarray(windows.any(axis=-1))
    return out


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
