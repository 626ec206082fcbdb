"""Evaluation of scores that look at neighbouring slices: the same slices, the same maps as `detect`'s."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from klip_engine.calibration import calibrate_scores, healthy_reference, keep_reference
from klip_engine.evaluation.batches import Batches, Usual
from klip_engine.evaluation.command import EvaluationJob, run_evaluation
from klip_engine.evaluation.insertion import insert_at
from klip_engine.evaluation.run_settings import RunSettings
from klip_engine.evaluation.statistics import Bootstrap
from klip_engine.evaluation.study import HEALTHY, StudySettings, collect_study
from klip_engine.io import read_ct
from klip_engine.io.sources import Source
from klip_engine.priors import PriorBundle, load_prior
from klip_engine.settings import SCORES, DetectionSettings, SamplingSettings
from klip_engine.slices import NetworkMeter, Watch, score_images, score_map
from klip_engine.working_grid import images_of_hu, to_working_grid
from tests.evaluation.conftest import GRID

STUDY = StudySettings(("star",), count=2, healthy_slices=4, matched=False)
SETTINGS = DetectionSettings(
    sampling=SamplingSettings(steps=4, samples=1, antithetic=False),
    score=replace(SCORES["klip"], name="klip-neighbours", neighbours=True),
    batch_slices=4,
    device="cpu",
)


@pytest.fixture
def bundle(prior, scans, tmp_path) -> PriorBundle:
    """With healthy slices in runs of five beside it."""
    folder = tmp_path / "bundle"
    shutil.copytree(prior, folder)
    bundle = load_prior(folder)
    keep_reference(bundle, healthy_reference(scans, GRID, 10, Watch()))
    for null in calibrate_scores(bundle, SETTINGS, SETTINGS.score.variants, "cpu"):
        null.save(folder / "null")
    return bundle


def _far(scan: Source, folder: Path) -> Source:
    """The same scan with its slices 7 mm apart."""
    image = sitk.ReadImage(str(scan.path))
    image.SetSpacing((*image.GetSpacing()[:2], 7.0))
    far = replace(scan, path=folder / "far.nrrd")
    sitk.WriteImage(image, str(far.path))
    return far


def test_every_slice_comes_with_the_healthy_ones_beside_it(scans):
    study = collect_study(scans, GRID, STUDY)
    for scan in scans:
        volume = read_ct(scan.path).volume
        healthy = to_working_grid(volume, GRID)
        last = scan.slices[0][1]
        for case in study.cases:
            if case.file != scan.path.name:
                continue
            working, lesion = healthy, case.lesion
            if lesion is not None:
                rng = np.random.default_rng(0)  # a star draws nothing
                altered = insert_at(
                    volume, "star", lesion.centre_lps_mm, diameters_mm=lesion.diameters_mm,
                    contrast_hu=lesion.contrast_hu, axes_lps=lesion.axes_lps, rng=rng,
                )  # fmt: skip
                working = to_working_grid(altered.volume, GRID)
            for side, k in enumerate((case.index - 1, case.index + 1)):
                found = study.around[case.number, side]
                if 0 <= k <= last:
                    body = study.body[case.number]
                    np.testing.assert_allclose(found[body], working.hu[k][body], atol=0.01)
                else:
                    assert np.isnan(found).all()
    ends = [case for case in study.cases if case.kind == HEALTHY and case.index in (0, last)]
    assert len(ends) == 2 * len(scans)
    assert study.accompanied.all()


def test_slices_too_far_apart_have_no_neighbours(scans, tmp_path):
    study = collect_study([_far(scans[0], tmp_path), scans[1]], GRID, STUDY)
    of_far = [case.file == "far.nrrd" for case in study.cases]
    np.testing.assert_array_equal(study.accompanied, ~np.array(of_far))


def test_maps_are_means_over_neighbours_where_there_are_some(bundle, scans, tmp_path):
    study = collect_study(scans, GRID, STUDY)
    lonely = 1
    study.around[lonely] = np.nan
    among, alone = calibrate_scores(bundle, SETTINGS, SETTINGS.score.variants, "cpu")
    meter = NetworkMeter(bundle.denoiser)
    batches = Batches(bundle, RunSettings(SETTINGS, (SETTINGS.score.name,)), "cpu", tmp_path, meter)
    usual = {SETTINGS.score.name: Usual(alone, among)}
    numbers = range(3)
    batch = batches.scored(
        "one.npz", study.hu[:3], study.body[:3], numbers, usual, {}, study.around[:3]
    )  # fmt: skip

    def scored(hu, its_numbers):
        return score_images(images_of_hu(hu), bundle, SETTINGS, "cpu", meter, None, numbers=its_numbers)

    for n in numbers:
        sides = [side for side in (0, 1) if not np.isnan(study.around[n, side]).any()]
        hu = np.concatenate([study.hu[n : n + 1], study.around[n, sides]])
        found = scored(hu, [n, *(2_000_000 + 2 * n + side for side in sides)])
        score, null = (SETTINGS.score.alone, alone) if n == lonely else (SETTINGS.score, among)
        mean = found.density[0]
        if sides:
            mean = (mean + found.density[1:].mean(dim=0)) / 2
        expected = score_map(mean[None], found.reconstruction[:1], score.alone, bundle, null.scales)[0]
        np.testing.assert_allclose(batch[f"maps:{score.name}"][n], expected, rtol=1e-4)
    assert [len(sides) for sides in (study.around[0, [1]], study.around[2])] == [1, 2]


def _job(bundle: PriorBundle, scans: tuple[Source, ...], folder: Path) -> EvaluationJob:
    return EvaluationJob(
        scans=scans,
        json_file=folder / "result.json",
        study=STUDY,
        run=RunSettings(SETTINGS, (SETTINGS.score.name, "klip")),
        prior=bundle,
        baselines={},
        bootstrap=Bootstrap(5),
    )


def test_an_evaluation_says_which_slices_its_p_values_come_from(bundle, scans, tmp_path):
    document = run_evaluation(_job(bundle, scans, tmp_path))
    nulls = {one["name"]: one["null"]["slices"] for one in document["methods"]}
    assert nulls == {"klip-neighbours": 12, "klip": 20}
    assert document["settings"]["detection"]["score"]["neighbours"] is True
    assert not any("no neighbours" in notice for notice in document["notices"])


def test_an_evaluation_with_slices_that_stand_alone_says_so_and_can_be_resumed(bundle, scans, tmp_path):
    job = _job(bundle, (_far(scans[0], tmp_path), scans[1]), tmp_path)
    document = run_evaluation(job)
    null = {one["name"]: one["null"] for one in document["methods"]}
    assert null["klip-neighbours"]["neighbours"] is True
    assert null["klip-neighbours"]["alone"]["slices"] == null["klip"]["slices"] == 20
    assert "alone" not in null["klip"]
    assert any("slices have no neighbours" in notice for notice in document["notices"])
    again = run_evaluation(replace(job, resume=True))
    assert {key: value for key, value in again.items() if key != "timing"} == {
        key: value for key, value in document.items() if key != "timing"
    }
