"""One simulated scan, detected as `klip-engine detect SCAN` does, some slices at a time: it can be resumed."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from klip_engine.calibration import calibrate, known_null, user_cache
from klip_engine.errors import KlipError
from klip_engine.evaluation.work import Batch, load_batch, save_batch
from klip_engine.files import write_file
from klip_engine.measured_scan import first_image, for_measured, measured_scanner, measured_slices
from klip_engine.pipeline import NULL_SLICES_ON_DEMAND
from klip_engine.priors import PriorBundle
from klip_engine.projections import Projections
from klip_engine.scoring.null import NullDistribution
from klip_engine.settings import DetectionSettings
from klip_engine.slices import NetworkMeter, Watch, score_images, score_map
from klip_engine.volume import BoolArray, FloatArray, Geometry
from klip_engine.working_grid import WorkingVolume, to_working_grid

_SLICES_AT_ONCE = 12


@dataclass(frozen=True)
class DetectedScan:
    """maps: scores [n, h, w]; first, reconstruction: HU on the working grid; notices: of consistency."""

    maps: FloatArray
    reconstruction: FloatArray
    first: FloatArray
    body: BoolArray
    geometry: Geometry
    null: NullDistribution
    notices: tuple[str, ...]
    block: int


@dataclass(frozen=True)
class PulledScan:
    """What the sampler made of a scan: density [n, terms, h, w] and reconstruction [n, 1, h, w]."""

    density: torch.Tensor
    reconstruction: torch.Tensor
    working: WorkingVolume
    settings: DetectionSettings
    notices: tuple[str, ...]


def sample_scan(
    projections: Projections, bundle: PriorBundle, work: Path, watch: Watch, count: int | None = None
) -> PulledScan:
    """What `detect` computes of a scan's first slices (count), or all, before it asks what is usual.

    Finished batches are kept in `work`, which must hold those of the same scan.
    """
    slices = measured_slices(projections, bundle, trust_geometry=True)
    settings = for_measured(DetectionSettings(device="cpu"), slices, bundle.ct_grid.pixel_mm)
    settings = replace(settings, score=settings.score.alone)  # the study's slices are of many scans
    _same_run(projections, settings, bundle, work)
    working = to_working_grid(first_image(projections, slices).volume, bundle.ct_grid)
    meter = NetworkMeter(bundle.denoiser, watch)
    working, scanner = measured_scanner(slices, working)
    count = count or len(working.hu)
    batches: list[Batch] = []
    for first in range(0, count, _SLICES_AT_ONCE):
        numbers = range(first, min(first + _SLICES_AT_ONCE, count))
        path = work / f"batch-{first:04d}.npz"
        stored = load_batch(path)
        if stored is None:
            images = working.images[numbers.start : numbers.stop]
            scored = score_images(images, bundle, settings, "cpu", meter, None, numbers=numbers, scanner=scanner)
            stored = {"density": scored.density.numpy(), "reconstruction": scored.reconstruction.numpy()}
            save_batch(path, stored)
        watch.tell(work.name, numbers.stop, count)
        batches.append(stored)
    density, reconstruction = (
        torch.from_numpy(np.concatenate([one[part] for one in batches])) for part in ("density", "reconstruction")
    )
    return PulledScan(density, reconstruction, working, settings, slices.notices)


def detected(scan: PulledScan, bundle: PriorBundle, watch: Watch) -> DetectedScan:
    """The score maps in units of what is usual for this scan's geometry and dose."""
    working, score = scan.working, scan.settings.score
    null = _null(bundle, scan.settings, watch)
    maps = score_map(scan.density, scan.reconstruction, score, bundle, null.scales)
    return DetectedScan(
        np.where(working.body[: len(maps)], maps, np.float32(0)),
        working.values_of(scan.reconstruction.numpy()),
        working.measured,
        working.body,
        working.geometry,
        null,
        scan.notices,
        min(score.blocks(bundle.ct_grid.pixel_mm)),
    )


def _same_run(projections: Projections, settings: DetectionSettings, bundle: PriorBundle, work: Path) -> None:
    """Keep in the folder what its batches depend on, by a digest; refuse one with another."""
    measured = hashlib.sha256(projections.line_integrals.tobytes()).hexdigest()
    digest = hashlib.sha256(repr((measured, settings.to_dict(), bundle.sha256)).encode()).hexdigest()
    path = work / "run.sha256"
    if not path.is_file():
        work.mkdir(parents=True, exist_ok=True)
        write_file(path, digest.encode())
    elif path.read_text() != digest:
        raise SystemExit(f"{work} holds batches of another scan, prior or settings: delete it")


def _null(bundle: PriorBundle, settings: DetectionSettings, watch: Watch) -> NullDistribution:
    """As `detect` finds it: kept, or measured now on the healthy slices beside the prior."""
    null = known_null(bundle, settings)
    if null is None:
        null = calibrate(bundle, settings, "cpu", count=NULL_SLICES_ON_DEMAND, watch=watch)
        with contextlib.suppress(KlipError):  # the cache only saves time
            null.save(user_cache() / "null")
    return null
