"""Slices scored a batch at a time: by KLIP from the same posterior samples, and by the methods of comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from klip_engine.errors import KlipError
from klip_engine.evaluation.baselines.base import Baseline, Evidence
from klip_engine.evaluation.run_settings import RunSettings
from klip_engine.evaluation.stacked_slices import StackedSlices
from klip_engine.evaluation.work import Batch, load_batch, save_batch
from klip_engine.priors import PriorBundle
from klip_engine.scoring.null import NullDistribution
from klip_engine.scoring.score_map import slice_maxima
from klip_engine.slices import NetworkMeter, scanner_and_sampler, score_images, score_map
from klip_engine.volume import BoolArray, FloatArray
from klip_engine.working_grid import images_of_hu


@dataclass(frozen=True)
class Usual:
    """What is usual by one score: for slices alone, and where it looks at neighbours, for slices with some."""

    alone: NullDistribution
    among: NullDistribution | None = None

    def of(self, neighbours: bool) -> NullDistribution:
        """For a slice with neighbours, or without."""
        return self.among if neighbours and self.among is not None else self.alone


@dataclass(frozen=True)
class Batches:
    """Batches of slices, reconstructed and scored; each is kept in the work folder and computed only once."""

    bundle: PriorBundle
    settings: RunSettings
    device: str
    work: Path
    meter: NetworkMeter

    def scored(
        self,
        name: str,
        hu: FloatArray,
        body: BoolArray,
        numbers: Sequence[int],
        nulls: Mapping[str, Usual],
        fitted: Mapping[str, Baseline],
        around: FloatArray | None = None,
    ) -> Batch:
        """Reconstructions, score maps [n, h, w] and slice scores of every method: as stored, or computed now.

        around: as in `Study`; by default the slices stand alone.
        """
        stored = load_batch(self.work / name)
        if stored is not None:
            return stored
        if around is None or all(usual.among is None for usual in nulls.values()):
            around = np.full((len(hu), 2, *hu.shape[1:]), np.nan, dtype=np.float32)
        maps, reconstruction = self._klip_maps(StackedSlices.of(hu, around, numbers), nulls)
        batch: Batch = {"reconstruction": reconstruction}
        for score, of_score in maps.items():
            batch[f"maps:{score}"] = of_score
            batch[f"slices:{score}"] = slice_maxima(of_score, body)
        if fitted:
            evidence = self.evidence(hu, body, numbers, reconstruction)
        for method, baseline in fitted.items():
            scores = baseline.score(self.meter, evidence, self.settings.detection.seed)
            batch[f"maps:{method}"] = scores.maps.float().cpu().numpy()
            batch[f"slices:{method}"] = scores.slices.float().cpu().numpy()
            if not all(np.isfinite(batch[f"{part}:{method}"]).all() for part in ("maps", "slices")):
                raise KlipError(f"the method '{method}' gave scores that are not finite")
        save_batch(self.work / name, batch)
        return batch

    def evidence(
        self, hu: FloatArray, body: BoolArray, numbers: Sequence[int], reconstruction: np.ndarray
    ) -> Evidence:
        """What methods of comparison look at, of slices whose reconstruction is known."""
        scanner, _ = scanner_and_sampler(self.bundle, self.settings.detection)
        images = torch.from_numpy(images_of_hu(hu)).to(self.device)
        return Evidence(
            torch.from_numpy(reconstruction)[:, None].to(self.device),
            scanner.measure(images, numbers),
            torch.from_numpy(body).to(self.device),
            tuple(numbers),
        )

    def _klip_maps(
        self, stacks: StackedSlices, nulls: Mapping[str, Usual]
    ) -> tuple[dict[str, FloatArray], FloatArray]:
        """The score maps [n, h, w] that `detect` makes, by name, and their reconstruction [n, h, w], HU / 1000.

        All scores come from the same posterior samples; nulls: by the name of each. Raises KlipError when the
        reconstruction does not stay finite.
        """
        scores = {name: self.settings.scored_by(name).score for name in nulls}
        scored = score_images(
            images_of_hu(stacks.hu),
            self.bundle,
            self.settings.detection,
            self.device,
            self.meter,
            None,
            scores=list(scores.values()),
            numbers=stacks.numbers,
        )
        densities = scored.density.split([len(score.terms) for score in scores.values()], dim=1)
        reconstruction = scored.reconstruction[stacks.middle]
        maps = {}
        for density, (name, usual) in zip(densities, nulls.items(), strict=True):
            score = scores[name]
            maps[name] = score_map(
                density[stacks.middle], reconstruction, score.alone, self.bundle, usual.alone.scales
            )
            if usual.among is not None:
                among = score_map(
                    density, scored.reconstruction, score, self.bundle, usual.among.scales, stacks.of_slice
                )
                maps[name] = np.where(stacks.accompanied[:, None, None], among[stacks.middle], maps[name])
            if not np.isfinite(maps[name]).all():
                raise KlipError("the reconstruction did not stay finite; the prior or the settings are at fault")
        return maps, reconstruction[:, 0].numpy()
