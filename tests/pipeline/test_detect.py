"""The whole call on synthetic CT with a Gaussian prior: geometry, determinism, cancel, honesty about the null."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import klip_engine
from klip_engine.errors import Cancelled, ResourceError, UsageError
from klip_engine.io.artifacts import open_artifact
from klip_engine.pipeline import NULL_SLICES_ON_DEMAND, detect
from klip_engine.presets import PRESETS, PUBLISHED_PRESETS, choose_settings
from klip_engine.priors import PriorMean, load_prior
from klip_engine.settings import DetectionSettings
from klip_engine.volume import CTVolume, Geometry
from tests.conftest import torso
from tests.pipeline.conftest import WIDE_BLOCKS

QUICK = {"steps": 6, "samples": 2, "score": "klip", "false_alarms": 0.05}
AXIAL = Geometry((120, 96, 5), (4.0, 4.0, 5.0), (-240, -190, 33))


def _axial() -> CTVolume:
    hu = torso(5)
    hu[2, 46:50, 58:62] = 1800
    return CTVolume(hu, AXIAL)


def _oblique(lesion_lps: np.ndarray) -> CTVolume:
    """A torso as an ellipsoid, in an oblique anisotropic grid, with a dense ball at a known LPS point."""
    angle, tilt = np.radians(20), np.radians(-12)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    lean = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    geometry = Geometry((110, 90, 30), (3.1, 3.7, 5.3), (20.0, -400.0, 88.0), tuple((turn @ lean).ravel()))
    index = np.stack(np.meshgrid(*[np.arange(n) for n in geometry.size], indexing="ij"), axis=-1)
    points = geometry.to_lps(index)
    centre = geometry.to_lps((54.5, 44.5, 14.5))
    body = (((points - centre) / np.array([150, 120, 400])) ** 2).sum(-1) < 1
    hu = np.where(body, 40.0, -1000.0)
    hu[((points - centre - lesion_lps) ** 2).sum(-1) < 14**2] = 1500
    return CTVolume(hu.T.astype(np.float32), geometry), centre + lesion_lps


def test_a_dense_ball_is_found_where_it_lies_in_an_oblique_anisotropic_volume(prior):
    volume, lesion = _oblique(np.array([40.0, -25.0, 12.0]))
    detection = detect(volume, prior, replace(WIDE_BLOCKS, false_alarms=0.2))
    assert detection.findings, "nothing was found"
    first = detection.findings[0]
    distance = np.linalg.norm(np.array(first.centroid_lps_mm) - lesion)
    assert distance <= 5.0, f"{distance:.1f} mm away; a working pixel is 5 mm"
    # Everything comes back in the input's own grid, and the label map shows the finding at the same place.
    assert detection.geometry == volume.geometry
    for array in (detection.reconstruction, detection.score, detection.regions):
        assert array.shape == volume.hu.shape
    x, y, z = np.rint(volume.geometry.to_index(lesion)).astype(int)
    assert detection.regions[z, y, x] == first.label
    labelled = np.argwhere(detection.regions == first.label)[:, ::-1]
    assert np.linalg.norm(volume.geometry.to_lps(labelled).mean(axis=0) - lesion) <= 5.0


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(prior):
    first, second = (detect(_axial(), prior, **QUICK, seed=3) for _ in range(2))
    assert np.array_equal(first.score, second.score)
    assert np.array_equal(first.reconstruction, second.reconstruction)
    assert first.findings == second.findings
    other = detect(_axial(), prior, **QUICK, seed=4)
    assert not np.array_equal(first.score, other.score)


@pytest.mark.parametrize("operator", ["identity", "parallel"])
def test_batch_size_and_neighbouring_slices_do_not_change_the_result(prior, operator, monkeypatch, tmp_path):
    monkeypatch.setattr("klip_engine.pipeline.NULL_SLICES_ON_DEMAND", 8)  # in a cache of this test
    monkeypatch.setenv("KLIP_CACHE", str(tmp_path / "cache"))
    results = [detect(_axial(), prior, **QUICK, operator=operator, batch_slices=size) for size in (1, 2, 5)]
    for other in results[1:]:
        assert np.array_equal(results[0].regions, other.regions)
        np.testing.assert_allclose(results[0].score, other.score, rtol=1e-3, atol=1e-6)


def test_the_cost_is_what_was_asked_for(prior):
    told = []
    detection = detect(_axial(), prior, **QUICK, progress=lambda *event: told.append(event))
    assert detection.timing["network_evaluations"] == 5 * 2 * 6
    reconstructing = [event for event in told if event[0] == "reconstructing"]
    assert reconstructing[-1] == ("reconstructing", 60, 60)
    assert [event[1] for event in reconstructing] == sorted(event[1] for event in reconstructing)


@pytest.mark.parametrize("preset", sorted(PRESETS.keys() - PUBLISHED_PRESETS.keys()))
def test_no_preset_but_the_published_takes_more_than_25_evaluations_per_sample(preset):
    assert PRESETS[preset].sampling.steps <= 25


def test_a_new_setting_gets_its_own_null_once_and_says_so(prior, own_cache):
    told = []
    settings = QUICK | {"steps": 7}
    first = detect(_axial(), prior, **settings, progress=lambda *event: told.append(event))
    assert any("No null distribution was known" in notice for notice in first.notices)
    assert ("drawing healthy slices", NULL_SLICES_ON_DEMAND, NULL_SLICES_ON_DEMAND) in told
    second = detect(_axial(), prior, **settings)
    assert not any("No null distribution" in notice for notice in second.notices)
    assert second.findings == first.findings


def test_a_score_the_prior_cannot_serve_is_said_before_a_null_is_drawn(prior, monkeypatch):
    def without_variance(x, sigma):
        return PriorMean(x)

    bundle = load_prior(prior)
    monkeypatch.setattr(bundle.denoiser, "denoise", without_variance)
    monkeypatch.setattr("klip_engine.pipeline.calibrate", lambda *_, **__: pytest.fail("a null was begun"))
    with pytest.raises(UsageError, match="needs a prior that predicts its variance.*--score klip"):
        detect(_axial(), bundle, steps=5, samples=1)


def test_the_result_says_which_noise_levels_ran_and_whether_the_prior_knows_them(prior):
    first = detect(_axial(), prior, sampler="ddpm", steps=8, samples=1, score="klip")
    assert first.settings["noise_levels"]["highest"] == pytest.approx(157.4, rel=0.01)
    assert any("the prior was trained on" in notice for notice in first.notices)
    again = DetectionSettings.from_dict(first.settings)
    assert again.sampling.sampler == "ddpm"


def test_a_rate_the_null_cannot_resolve_is_said(prior):
    detection = detect(_axial(), prior, **(QUICK | {"false_alarms": 1e-5}))
    assert any("cannot tell rates of false alarms below" in notice for notice in detection.notices)


def test_fewer_false_alarms_mark_less(prior):
    loose = detect(_axial(), prior, **(QUICK | {"false_alarms": 0.5}))
    strict = detect(_axial(), prior, **(QUICK | {"false_alarms": 0.02}))
    assert strict.threshold > loose.threshold
    assert not ((strict.regions > 0) & (loose.regions == 0)).any()


def test_findings_and_slices_agree_with_the_maps(prior):
    detection = detect(_axial(), prior, WIDE_BLOCKS)
    working = detection.working
    assert [s.index for s in detection.slices] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([s.position_mm for s in detection.slices], [33, 38, 43, 48, 53])
    for number, one in enumerate(detection.slices):
        assert one.score == pytest.approx(float(working.score[number].max()))
    for finding in detection.findings:
        assert finding.score == pytest.approx(float(working.score[working.regions == finding.label].max()))
        assert finding.p_value <= 0.05
    assert not (working.regions[~working.body]).any()
    first, last = detection.findings[0].slice_range
    assert first <= 2 <= last  # the dense block is in slice 2


def test_updates_are_saved_for_every_working_slice_with_its_body_and_settings(prior, tmp_path, monkeypatch):
    monkeypatch.setattr("klip_engine.pipeline.NULL_SLICES_ON_DEMAND", 4)  # of settings no other test uses
    how = {"steps": 3, "samples": 1, "score": "klip"}
    detection = detect(_axial(), prior, **how, save_updates=tmp_path / "updates")
    files = sorted((tmp_path / "updates").iterdir())
    assert len(files) == len(detection.slices)
    for body, file in zip(detection.working.body, files, strict=True):
        artifact = open_artifact(file)
        assert artifact.shape[3:] == body.shape
        np.testing.assert_array_equal(artifact.body, body)
        assert artifact.settings["sampling"] == detection.settings["sampling"]
        assert artifact.settings["prior"] == detection.prior
    with pytest.raises(UsageError, match="new or empty folder"):
        detect(_axial(), prior, **how, save_updates=tmp_path / "updates")


def test_cancel_stops_and_raises(prior):
    calls = iter(range(100))
    with pytest.raises(Cancelled):
        detect(_axial(), prior, **QUICK, cancelled=lambda: next(calls) > 3)


def test_memory_that_gives_out_is_a_resource_error(prior, monkeypatch):
    import klip_engine.pipeline as pipeline

    def exhausted(*_args, **_kwargs):
        raise MemoryError

    monkeypatch.setattr(pipeline, "score_images", exhausted)
    with pytest.raises(ResourceError, match="batch_slices"):
        detect(_axial(), prior, **QUICK)


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"sampler": "magic"}, "no sampler is called 'magic'"),
        ({"operator": "xray"}, "Unknown operator 'xray'"),
        ({"score": "best"}, "no score is called 'best'"),
        ({"preset": "slow"}, "no preset is called 'slow'"),
        ({"false_alarms": 0.0}, "between 0 and 1"),
        ({"steps": 1}, "at least 2 steps"),
        ({"views": 24}, "has no views"),
        ({"colour": "red"}, "unknown setting"),
    ],
)
def test_wrong_choices_are_usage_errors_with_a_sentence(prior, choice, sentence):
    with pytest.raises(UsageError, match=sentence):
        detect(_axial(), prior, **(QUICK | choice))


def test_a_device_that_is_not_there_is_a_resource_error(prior):
    with pytest.raises(ResourceError, match="cuda:7"):
        detect(_axial(), prior, **QUICK, device="cuda:7")


def test_the_threshold_does_not_depend_on_the_seed_that_made_the_null(prior, monkeypatch, tmp_path):
    monkeypatch.setattr("klip_engine.pipeline.NULL_SLICES_ON_DEMAND", 8)  # in caches of this test
    thresholds = []
    for seed in (1, 2):
        monkeypatch.setenv("KLIP_CACHE", str(tmp_path / str(seed)))
        thresholds.append(detect(_axial(), prior, **QUICK, seed=seed).threshold)
    assert thresholds[0] == thresholds[1]


def test_a_cache_that_cannot_be_written_costs_a_notice_not_the_result(prior, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("klip_engine.pipeline.NULL_SLICES_ON_DEMAND", 8)
    monkeypatch.setenv("KLIP_CACHE", str(tmp_path / "file"))
    detection = detect(_axial(), prior, **QUICK)
    assert any("could not be kept" in notice for notice in detection.notices)


def test_a_reconstruction_that_is_not_finite_is_an_error_not_a_clean_bill(prior):
    volume = _axial()
    bundle = klip_engine.load_prior(prior)
    bundle.denoiser.network.out[-1].conv.bias.data.fill_(float("nan"))
    with pytest.raises(klip_engine.KlipError):
        detect(volume, bundle, **QUICK)


def test_slice_range_covers_what_the_label_map_shows(prior):
    hu = np.repeat(torso(1), 9, axis=0)
    hu[3:6, 46:50, 58:62] = 1800
    volume = CTVolume(hu, Geometry((120, 96, 9), (4.0, 4.0, 1.0)))
    detection = detect(volume, prior, **QUICK)
    slices = np.flatnonzero((detection.regions == 1).any(axis=(1, 2)))
    assert detection.findings[0].slice_range == (slices[0], slices[-1])


def test_the_null_depends_on_everything_that_changes_scores_and_on_nothing_else():
    base = choose_settings()
    same = replace(base, seed=5, device="cpu", batch_slices=1, false_alarms=0.3)
    assert base.null_settings("x", "drawn") == same.null_settings("x", "drawn")
    for changed in (
        choose_settings(operator="parallel"),
        choose_settings(steps=10),
        choose_settings(samples=1),
        choose_settings(score="klip"),
    ):
        assert base.null_settings("x", "drawn") != changed.null_settings("x", "drawn")
    assert base.null_settings("x", "drawn") != base.null_settings("y", "drawn")
    assert base.null_settings("x", "drawn") != base.null_settings("x", "a digest")


def test_the_null_depends_on_what_is_averaged_over_neighbours_only_where_something_is():
    base = choose_settings()
    assert base.score.neighbours
    flipped = tuple(replace(term, over_neighbours=not term.over_neighbours) for term in base.score.terms)
    changed = replace(base, score=replace(base.score, terms=flipped))
    assert base.null_settings("x", "drawn") != changed.null_settings("x", "drawn")
    alone, changed_alone = (replace(one, score=one.score.alone) for one in (base, changed))
    assert alone.null_settings("x", "drawn") == changed_alone.null_settings("x", "drawn")


def test_the_public_names_are_there():
    for name in klip_engine.__all__:
        assert getattr(klip_engine, name) is not None
    with pytest.raises(AttributeError):
        _ = klip_engine.nonsense
