"""Results on disk mark at another rate what a run with that rate would have marked."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from klip_engine.detection import PhotographDetection
from klip_engine.errors import InputError, UsageError
from klip_engine.io import write_results
from klip_engine.photograph import Photograph
from klip_engine.pipeline import detect
from klip_engine.presets import read_settings
from klip_engine.saved import open_results
from klip_engine.volume import CTVolume
from tests.pipeline.conftest import WIDE_BLOCKS
from tests.pipeline.test_detect import _axial, _oblique


@pytest.fixture(scope="module", params=["axial", "oblique"])
def volume(request) -> CTVolume:
    return _axial() if request.param == "axial" else _oblique(np.array([40.0, -25.0, 12.0]))[0]


@pytest.fixture(scope="module")
def folder(volume, prior, tmp_path_factory):
    out = tmp_path_factory.mktemp("saved") / "out"
    write_results(detect(volume, prior, WIDE_BLOCKS), out)
    return out


@pytest.mark.parametrize("rate", [0.05, 0.6])
def test_another_rate_marks_what_a_run_with_it_would_have_marked(volume, prior, folder, rate):
    run = detect(volume, prior, replace(WIDE_BLOCKS, false_alarms=rate))
    marked = open_results(folder).at(rate)
    assert marked.threshold == run.threshold
    np.testing.assert_array_equal(marked.regions, run.regions)
    assert marked.regions.dtype == np.uint16
    assert len(marked.findings) == len(run.findings) > 0
    for one, other in zip(marked.findings, run.findings, strict=True):
        assert (one.label, one.p_value, one.slice_range) == (other.label, other.p_value, other.slice_range)
        np.testing.assert_allclose(one.centroid_lps_mm, other.centroid_lps_mm, atol=1e-6)
        np.testing.assert_allclose([one.score, one.volume_ml], [other.score, other.volume_ml], rtol=1e-9)


def test_the_findings_and_the_grid_come_back_as_they_were_written(volume, folder):
    saved = open_results(folder)
    np.testing.assert_allclose(saved.geometry.matrix, volume.geometry.matrix, atol=1e-9)
    assert saved.geometry.size == volume.geometry.size
    assert [vars(one) | {"slice_range": [*one.slice_range], "centroid_lps_mm": [*one.centroid_lps_mm]}
            for one in saved.findings] == saved.document["findings"]  # fmt: skip


def test_a_photograph_is_marked_again_on_its_own_pixels(tmp_path):
    score = np.zeros((1, 8, 10), dtype=np.float32)
    score[0, 2:4, 3:6] = 5
    from tests.io.conftest import make_detection

    plain = make_detection()
    photograph = Photograph(np.zeros((8, 10, 1), dtype=np.uint8))
    working = replace(
        plain.working,
        measured=np.zeros((1, 8, 10, 1), dtype=np.float32),
        reconstruction=np.zeros((1, 8, 10, 1), dtype=np.float32),
        score=score,
        regions=(score > 1.5).astype(np.uint16),
        body=np.ones((1, 8, 10), dtype=bool),
        geometry=photograph.geometry,
        source_slices=None,
    )
    values = vars(plain) | {"working": working, "geometry": photograph.geometry, "source": photograph}
    write_results(PhotographDetection(**values | {"slices": plain.slices[:1], "findings": ()}), tmp_path / "out")
    marked = open_results(tmp_path / "out").at(0.5)
    np.testing.assert_array_equal(marked.regions, (score > marked.threshold).astype(np.uint16))
    assert len(marked.findings) == 1


@pytest.mark.parametrize("rate", [0, 1, -0.1, float("nan"), "often"])
def test_a_rate_that_is_none_is_a_usage_error(folder, rate):
    with pytest.raises(UsageError, match="between 0 and 1"):
        open_results(folder).at(rate)


def test_a_rate_finer_than_the_null_can_tell_is_said(folder):
    saved = open_results(folder)
    assert saved.at(saved.finest_rate).notices == ()
    (notice,) = saved.at(saved.finest_rate / 2).notices
    assert f"{saved.finest_rate:.3g} was used instead" in notice


def test_settings_are_read_from_a_path_as_text(folder):
    assert read_settings(str(folder / "findings.json")).false_alarms == WIDE_BLOCKS.false_alarms


def test_a_reader_that_has_enough_is_no_error():
    """`klip-engine info default | true`: nothing is said, nothing went wrong."""
    command = f"{shlex.quote(sys.executable)} -m klip_engine info default | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_folder_without_results_and_damaged_results_are_said(folder, tmp_path):
    with pytest.raises(InputError, match="holds no results"):
        open_results(tmp_path)
    for damage, sentence in (
        (lambda document: document.pop("null"), "not complete or damaged"),
        (lambda document: document.update(schema="klip-findings/0"), "not of the schema klip-findings/1"),
        (lambda document: document["null"].update(maxima=[]), "not complete or damaged"),
        (lambda document: document.update(working_slices=[1]), "not complete or damaged"),
    ):
        copy = tmp_path / "copy"
        copy.mkdir(exist_ok=True)
        for file in folder.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        document = json.loads((copy / "findings.json").read_text())
        damage(document)
        (copy / "findings.json").write_text(json.dumps(document))
        with pytest.raises(InputError, match=sentence):
            open_results(copy)
    (copy / "findings.json").write_bytes((folder / "findings.json").read_bytes())
    (copy / "klip-working.nrrd").write_bytes(b"NRRD0004\n")
    with pytest.raises(InputError, match="not complete or damaged"):
        open_results(copy)


def test_marking_again_loads_neither_torch_nor_monai():
    words = "import sys, klip_engine.saved; print('torch' in sys.modules, 'monai' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "False"]
