"""Training: data in, prior out; what is resumed continues; what is healthy is what the table says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from klip_engine.errors import Cancelled, InputError, UsageError
from klip_engine.io.sources import find_sources, read_manifest
from klip_engine.priors import load_prior
from klip_engine.priors.network import NetworkConfig
from klip_engine.training.augmentation import NO_AUGMENTATION, Augmentation, augment
from klip_engine.training.command import TrainingJob, run_training
from klip_engine.training.dataset import load_slices
from klip_engine.training.trainer import train
from klip_engine.training.training_settings import TrainingSettings
from klip_engine.working_grid import WorkingGrid

GRID = WorkingGrid((48, 64), 8.0)
TINY = NetworkConfig((16, 16), (1, 1), (False, False), 8, 8)


def _settings(**changes) -> TrainingSettings:
    return TrainingSettings(**({"images": 32, "batch_size": 8, "network": TINY, "seed": 1} | changes))


def test_only_healthy_slices_of_patients_not_excluded_are_read(ct_files):
    data = load_slices(find_sources([ct_files / "table.csv"], exclude=["P1"]), GRID)
    assert data.patients == ("P0",) * 4 + ("P2",) * 2
    assert data.hu.shape == (6, 1, 144, 192)
    assert float(data.body.float().mean()) > 0.1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,slices\na.nrrd,5-2\n", "line 2.*not a range"),
        ("file,slices\na.nrrd,first\n", "line 2.*not a range"),
        ("name,slices\na.nrrd,all\n", "line 2.*'file'"),
    ],
)
def test_a_wrong_table_is_answered_with_its_line(tmp_path, text, sentence):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_manifest(tmp_path / "table.csv")


def test_scans_of_one_name_are_different_patients_and_none_counts_twice(tmp_path):
    first, second = tmp_path / "p1" / "CT", tmp_path / "p2" / "CT"
    named = find_sources([first, second, tmp_path / "a.nii.gz"])
    assert [source.patient for source in named] == ["p1/CT", "p2/CT", "a"]
    (tmp_path / "table.csv").write_text("\ufefffile,slices\na.nii.gz,0-3\n", encoding="utf-8")  # as Excel writes it
    assert [source.patient for source in find_sources([tmp_path / "table.csv"])] == ["a"]
    with pytest.raises(UsageError, match="named twice: a.nii.gz"):
        find_sources([tmp_path / "table.csv", tmp_path / "a.nii.gz"])


def test_no_data_is_a_usage_error(ct_files):
    with pytest.raises(UsageError, match="no healthy data"):
        find_sources([ct_files / "table.csv"], exclude=["P0", "P1", "P2"])


def test_augmentation_without_ranges_is_the_area_mean_without_the_table():
    hu = torch.full((1, 1, 8, 8), 500.0)
    body = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    body[..., :, :4] = True
    out = augment(hu, body, 1.0, 2, NO_AUGMENTATION, torch.Generator().manual_seed(0))
    assert out.shape == (1, 1, 4, 4)
    torch.testing.assert_close(out[..., :2], torch.full((1, 1, 4, 2), 0.5))
    torch.testing.assert_close(out[..., 2:], torch.full((1, 1, 4, 2), -1.0))


def test_the_smooth_deformation_moves_by_millimetres_and_neighbours_together():
    across = torch.arange(160.0).expand(1, 1, 96, 160) - 80  # HU = column on a grid of 2 mm
    body = torch.ones(1, 1, 96, 160, dtype=torch.bool)
    settings = Augmentation(0, 0, 0, 0, elastic_mm=4.0, elastic_spacing_mm=64.0, keep_table=0)
    moved = []
    for seed in range(40):
        out = augment(across, body, 2.0, 2, settings, torch.Generator().manual_seed(seed))
        still = augment(across, body, 2.0, 2, NO_AUGMENTATION, torch.Generator().manual_seed(seed))
        moved.append(2.0 * 1000 * (out - still)[..., 8:-8, 16:-16])  # in mm
    displacement = torch.cat(moved)
    assert 2.0 < float(displacement.std()) < 4.5  # between the knots a little less than at them
    assert float((displacement[..., 1:] - displacement[..., :-1]).abs().max()) < 2.0  # 4 mm apart: no folds


def test_augmentation_rotates_in_millimetres():
    """A disc stays a disc of the same size on a grid that is not square."""
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(160.0), indexing="ij")
    disc = ((rows - 47.5) ** 2 + (columns - 79.5) ** 2 < 30**2)[None, None]
    hu = torch.where(disc, 0.0, -1000.0)
    settings = Augmentation(90.0, 0, 0, 0, elastic_mm=0, keep_table=1.0)
    for seed in range(3):
        out = augment(hu, disc, 1.0, 2, settings, torch.Generator().manual_seed(seed)) > -0.5
        torch.testing.assert_close(out.sum().float(), (disc.sum() / 4).float(), rtol=0.02, atol=0)
        rows_hit, columns_hit = out[0, 0].any(1).sum(), out[0, 0].any(0).sum()
        assert abs(int(rows_hit) - int(columns_hit)) <= 1


def test_training_lowers_the_loss_and_writes_a_bundle_that_loads(ct_files):
    told: list[tuple[str, int, int]] = []
    job = TrainingJob(
        data=(ct_files / "table.csv",),
        validation=(ct_files / "patient2.nrrd",),
        exclude=("P2",),
        bundle=ct_files / "prior",
        grid=GRID,
        settings=_settings(images=320, learning_rate=5e-3),
        note="Data: synthetic.",
    )
    run_training(job, lambda *event: told.append(event), lambda: False)
    prior = load_prior(ct_files / "prior")
    assert prior.training["patients"] == 2
    assert prior.training["validation_patients"] == ["patient2"]
    assert prior.training["images_seen"] == 320
    assert prior.training["validation_error"]["1"] < 0.7  # 1 = untrained
    card = (ct_files / "prior" / "docs" / "README.md").read_text()
    assert "10 slices of 2 patients" in card
    assert "Data: synthetic." in card
    assert (ct_files / "prior" / "training" / "progress.png").stat().st_size > 10_000
    history = [json.loads(line) for line in (ct_files / "prior" / "training" / "history.jsonl").open()]
    assert history[-1]["validation"]
    assert told[-1] == ("training (images)", 320, 320)


def test_a_resumed_run_ends_where_an_unbroken_one_does(ct_files):
    data = load_slices(find_sources([ct_files / "table.csv"]), GRID)
    whole = train(data, GRID, ct_files / "whole", _settings())
    steps = iter(range(100))
    with pytest.raises(Cancelled):
        train(data, GRID, ct_files / "parts", _settings(), cancelled=lambda: next(steps) >= 1)
    broken = torch.load(ct_files / "parts" / "checkpoint.pt", weights_only=True)
    assert broken["counters"][0] == 16  # stopped after two of four batches
    resumed = train(data, GRID, ct_files / "parts", _settings(), resume=True)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_run_begins_with_the_weights_of_a_prior_and_says_so(ct_files):
    first = TrainingJob(
        (ct_files / "patient0.nrrd",), ct_files / "first", GRID, _settings(), note="Data: of first."
    )
    run_training(first, lambda *_: None, lambda: False)
    before = load_prior(ct_files / "first")
    second = replace(
        first,
        data=(ct_files / "patient1.nrrd",),
        bundle=ct_files / "second",
        settings=_settings(images=8, learning_rate=1e-12, weight_decay=0.0),
        start=str(ct_files / "first"),
        note="",
    )
    run_training(second, lambda *_: None, lambda: False)
    after = load_prior(ct_files / "second")
    for one, other in zip(before.denoiser.parameters(), after.denoiser.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    assert after.training["started_from"]["hash"] == f"sha256:{before.sha256}"
    assert after.training["started_from"]["training"]["images_seen"] == 32
    assert "Started from the prior `first`" in (ct_files / "second" / "docs" / "README.md").read_text()
    assert "Data: of first." in (ct_files / "second" / "docs" / "started-from.md").read_text()
    longer = replace(second, settings=_settings(images=16, learning_rate=1e-12), resume=True)
    with pytest.raises(UsageError, match="started from the prior 'first'.*--start"):
        run_training(replace(longer, start=None), lambda *_: None, lambda: False)
    (ct_files / "second" / "training" / "start.json").write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        run_training(longer, lambda *_: None, lambda: False)
    (ct_files / "second" / "training" / "start.json").write_text(json.dumps(before.identity()))
    run_training(longer, lambda *_: None, lambda: False)
    third = replace(second, bundle=ct_files / "third", start=str(ct_files / "second"))
    run_training(third, lambda *_: None, lambda: False)
    cards = (ct_files / "third" / "docs" / "started-from.md").read_text()
    assert "Started from the prior `first`" in cards
    assert "Data: of first." in cards


def test_a_prior_of_another_grid_or_network_is_no_start(ct_files):
    first = TrainingJob((ct_files / "patient0.nrrd",), ct_files / "first", GRID, _settings(images=8))
    run_training(first, lambda *_: None, lambda: False)
    job = replace(first, bundle=ct_files / "second", start=str(ct_files / "first"))
    with pytest.raises(UsageError, match=r"\(48, 64\) pixels of 8 mm.*--shape"):
        run_training(replace(job, grid=WorkingGrid((48, 64), 6.0)), lambda *_: None, lambda: False)
    wider = NetworkConfig((16, 32), (1, 1), (False, False), 8, 8)
    with pytest.raises(UsageError, match="another family, network or grid"):
        run_training(replace(job, settings=_settings(images=8, network=wider)), lambda *_: None, lambda: False)


def test_an_existing_run_is_not_overwritten_and_needs_the_same_network(ct_files):
    data = load_slices(find_sources([ct_files / "patient1.nrrd"]), GRID)
    train(data, GRID, ct_files / "run", _settings(images=8))
    with pytest.raises(UsageError, match="resume"):
        train(data, GRID, ct_files / "run", _settings(images=8))
    with pytest.raises(InputError, match="family, network, grid and optimiser"):
        train(data, WorkingGrid((48, 64), 6.0), ct_files / "run", _settings(images=8), resume=True)
    other = NetworkConfig((16, 32), (1, 1), (False, False), 8, 8)
    with pytest.raises(InputError, match="family, network, grid and optimiser"):
        train(data, GRID, ct_files / "run", _settings(images=8, network=other), resume=True)


def test_a_stopped_job_says_how_to_continue(ct_files):
    job = TrainingJob((ct_files / "patient1.nrrd",), ct_files / "prior", GRID, _settings())
    with pytest.raises(Cancelled, match="--resume"):
        run_training(job, lambda *_: None, lambda: True)
    assert (ct_files / "prior" / "training" / "checkpoint.pt").exists()
    assert not (ct_files / "prior" / "configs").exists()


@pytest.mark.parametrize("length", [{"images": None}, {"minutes": 1.0}, {"images": 0}])
def test_the_length_must_be_given_once(length):
    with pytest.raises(UsageError, match="minutes or images|more than nothing"):
        _settings(**length)


def test_what_does_not_fit_together_is_said_before_anything_is_read(ct_files):
    with pytest.raises(UsageError, match="multiples of 4"):
        TrainingJob((ct_files,), ct_files / "prior", WorkingGrid((50, 64), 8.0), _settings())
    with pytest.raises(UsageError, match="no such patient to leave out: p1"):
        find_sources([ct_files / "table.csv"], exclude=["p1"])
    job = TrainingJob(
        (ct_files / "table.csv",), ct_files / "prior", GRID, _settings(), validation=(ct_files / "table.csv",)
    )
    with pytest.raises(UsageError, match="both training and validation"):
        run_training(job, lambda *_: None, lambda: False)


def test_a_finished_run_that_is_resumed_writes_its_bundle_again(ct_files):
    job = TrainingJob((ct_files / "patient1.nrrd",), ct_files / "prior", GRID, _settings(images=16))
    first = run_training(job, lambda *_: None, lambda: False)
    again = run_training(replace(job, resume=True), lambda *_: None, lambda: False)
    assert first["images_seen"] == again["images_seen"] == 16


def test_two_processes_of_torchrun_share_their_gradients(ct_files):
    """Two gloo ranks on the CPU: both end with the same weights, and rank 0 writes one bundle."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "klip_engine", "train", str(ct_files / "table.csv"), "-o", str(ct_files / "prior"),
        "--images", "16", "--batch-size", "4", "--shape", "48", "64", "--pixel-mm", "8", "--device", "cpu",
        "--noise-levels", "-2", "1.25", "--progress", "none",
    ]  # fmt: skip
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    training = load_prior(ct_files / "prior").training
    assert training["images_seen"] == 16
    assert training["noise_levels"] == [-2.0, 1.25]
