"""From a score map to regions: threshold, connected components in 3D, and what describes each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from klip_engine.volume import BoolArray, FloatArray


@dataclass(frozen=True)
class Region:
    """One connected region, in voxel indices of the map it was found in.

    centroid: score-weighted (x, y, z); first_slice, last_slice: inclusive.
    """

    label: int
    score: float
    centroid: tuple[float, float, float]
    voxels: int
    first_slice: int
    last_slice: int


def find_regions(
    score: FloatArray, body: BoolArray, threshold: float, *, limit: int = 65535
) -> tuple[npt.NDArray[np.uint16], list[Region]]:
    """Label map uint16 [z, y, x] and the regions in it, strongest first and labelled from 1.

    A voxel belongs to a region when it lies in the body and its score exceeds the threshold; voxels that share
    a face, edge or corner are connected. At most `limit` regions are kept (a label map holds no more).
    """
    suspicious = (score > threshold) & body
    components = sitk.ConnectedComponent(sitk.GetImageFromArray(suspicious.astype(np.uint8)), True)
    found = sitk.GetArrayFromImage(components)
    count = int(found.max(initial=0))
    if count == 0:
        return np.zeros(score.shape, dtype=np.uint16), []
    peaks = np.zeros(count + 1)
    np.maximum.at(peaks, found.ravel(), np.where(suspicious, score, 0).ravel())
    order = (np.argsort(-peaks[1:], kind="stable") + 1)[:limit]
    rank = np.zeros(count + 1, dtype=np.uint16)
    rank[order] = np.arange(1, len(order) + 1)
    labels = rank[found]
    return labels, _describe(labels, score, len(order))


def _describe(labels: npt.NDArray[np.uint16], score: FloatArray, count: int) -> list[Region]:
    z, y, x = np.nonzero(labels)
    label = labels[z, y, x].astype(np.int64)
    weight = score[z, y, x].astype(np.float64)
    total = np.bincount(label, weight, count + 1)
    centres = [np.bincount(label, weight * axis, count + 1) / np.maximum(total, 1e-300) for axis in (x, y, z)]
    voxels = np.bincount(label, minlength=count + 1)
    first = np.full(count + 1, labels.shape[0])
    last = np.full(count + 1, -1)
    peak = np.full(count + 1, -np.inf)
    np.minimum.at(first, label, z)
    np.maximum.at(last, label, z)
    np.maximum.at(peak, label, weight)
    return [
        Region(
            n,
            float(peak[n]),
            (float(centres[0][n]), float(centres[1][n]), float(centres[2][n])),
            int(voxels[n]),
            int(first[n]),
            int(last[n]),
        )
        for n in range(1, count + 1)
    ]
