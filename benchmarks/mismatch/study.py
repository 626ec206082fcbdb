"""The slices of the study at the source's own resolution, stacked as one volume that can be projected."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from klip_engine.evaluation.insertion import insert_at, lesion_mask
from klip_engine.evaluation.study import Case, StudySettings, collect_study
from klip_engine.io import read_ct
from klip_engine.io.sources import Source
from klip_engine.volume import BoolArray, CTVolume, FloatArray, Geometry
from klip_engine.working_grid import WorkingGrid, to_working_grid

SLICE_MM = 3.0
"""Between the stacked slices, which are no neighbours in the patient."""
_SUB_PIXELS = 3


@dataclass(frozen=True)
class FineStudy:
    """volume: the slices [n, y, x] in HU on the source's pixels, `SLICE_MM` apart; cases: what each of them is;
    lattice: of the working slices they were taken from."""

    volume: CTVolume
    cases: tuple[Case, ...]
    lattice: Geometry

    def lesions(self, working: Geometry) -> BoolArray:
        """The lesion of each slice on the pixels of a working grid: [n, h, w]."""
        real = replace(
            self.lattice,
            size=(working.size[0], working.size[1], self.lattice.size[2]),
            spacing=(working.spacing[0], working.spacing[1], self.lattice.spacing[2]),
            origin=(working.origin[0], working.origin[1], self.lattice.origin[2]),
        )
        masks = np.zeros((len(self.cases), working.size[1], working.size[0]), dtype=bool)
        for mask, case in zip(masks, self.cases, strict=True):
            if case.lesion is not None:
                mask[:] = lesion_mask(case.lesion, real)[case.index]
        return masks

    def truth(self, plane: Geometry) -> FloatArray:
        """HU [n, h, w] on the pixels of a plane: the mean over each of them; air beyond the source."""
        n, count = _SUB_PIXELS, len(self.cases)
        spacing = (plane.spacing[0] / n, plane.spacing[1] / n, SLICE_MM)
        corner = [plane.origin[axis] - spacing[axis] * (n - 1) / 2 for axis in (0, 1)]
        fine = Geometry(
            (plane.size[0] * n, plane.size[1] * n, count),
            spacing,
            (corner[0], corner[1], self.volume.geometry.origin[2]),
        )
        image = self.volume.geometry.image(self.volume.hu)
        seen = sitk.GetArrayFromImage(
            sitk.Resample(image, fine.empty_image(), sitk.Transform(), sitk.sitkLinear, -1000.0)
        )
        blocks = seen.reshape(count, plane.size[1], n, plane.size[0], n)
        means: FloatArray = blocks.mean(axis=(2, 4)).astype(np.float32)
        return means


def fine_study(scan: Source, grid: WorkingGrid, settings: StudySettings) -> FineStudy:
    """The healthy slices and lesions that `klip-engine evaluate` takes of this scan, as they were before they came
    onto the working grid: each the mean of the source slices behind a working slice, with its lesion inserted on
    the source's voxels."""
    study = collect_study([scan], grid, settings)
    source = read_ct(scan.path).volume
    working = to_working_grid(source, grid)
    if working.source_slices is None:
        raise SystemExit(f"{scan.path} is not axial: its slices cannot be stacked")
    slices = []
    for case in study.cases:
        volume = source
        if case.lesion is not None:
            record = case.lesion
            volume = insert_at(
                source,
                record.kind,
                record.centre_lps_mm,
                diameters_mm=record.diameters_mm,
                contrast_hu=record.contrast_hu,
                axes_lps=record.axes_lps,
                rng=np.random.default_rng(case.number),
            ).volume
        first, last = working.source_slices[case.index]
        slices.append(volume.hu[first:last].mean(axis=0).clip(-1000, None))
    geometry = source.geometry
    if not np.allclose(np.reshape(geometry.direction, (3, 3))[:2, :2], np.eye(2), atol=1e-3):
        raise SystemExit(f"{scan.path} is turned in the plane: its slices cannot be stacked")
    stacked = Geometry(
        (geometry.size[0], geometry.size[1], len(slices)),
        (geometry.spacing[0], geometry.spacing[1], SLICE_MM),
        (geometry.origin[0], geometry.origin[1], 0.0),
    )
    return FineStudy(CTVolume(np.stack(slices).astype(np.float32), stacked), study.cases, working.geometry)
