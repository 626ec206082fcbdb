"""The demonstration scan that ships with the package says truly what is in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import klip_engine
from klip_engine.errors import InputError
from klip_engine.evaluation.demo_volume import make_demo_volume
from klip_engine.evaluation.insertion import LesionRecord, lesion_mask
from klip_engine.volume import CTVolume

DEMO = Path(klip_engine.__file__).parent / "data" / "demo"


@pytest.fixture(scope="module")
def truth() -> dict:
    return json.loads((DEMO / "demo_truth.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def scan() -> CTVolume:
    return CTVolume.from_image(sitk.ReadImage(str(DEMO / "demo_ct.nrrd")))


def record_of(truth: dict) -> LesionRecord:
    return LesionRecord(**{name: truth[name] for name in LesionRecord.__dataclass_fields__})


def test_a_nodule_of_soft_tissue_density_lies_where_the_truth_says(scan, truth):
    mask = lesion_mask(record_of(truth), scan.geometry)
    touched = np.flatnonzero(mask.any(axis=(1, 2)))
    assert [touched[0], touched[-1]] == truth["slice_range"]
    assert 0.0 < np.median(scan.hu[mask]) < 60.0
    k, j, i = np.rint(scan.geometry.to_index(truth["centre_lps_mm"])).astype(int)[::-1]
    around = scan.hu[k, j - 12 : j + 13, i - 12 : i + 13]
    assert np.median(around) < -700.0  # it lies in the lung
    assert truth["centre_lps_mm"][0] < 0  # on the patient's right


def test_the_file_is_small_and_carries_nothing_but_geometry():
    path = DEMO / "demo_ct.nrrd"
    assert path.stat().st_size < 3_000_000
    header = path.read_bytes().split(b"\n\n", 1)[0].decode("ascii")
    fields = {line.split(":")[0] for line in header.splitlines()[1:] if not line.startswith("#")}
    assert fields == {
        *("type", "dimension", "space", "sizes", "space directions", "kinds"),
        *("endian", "encoding", "space origin"),
    }


def test_attribution_and_licence_lie_beside_it():
    for name in ("README.md", "LICENSE.md"):
        text = (DEMO / name).read_text(encoding="utf-8")
        assert "10.7937/K9/TCIA.2018.SC20FO18" in text
        assert "CC BY 3.0" in text


def test_it_can_be_made_again_from_its_source(shared_ct, tmp_path, scan, truth):
    make_demo_volume(shared_ct / "series" / truth["source_file"], tmp_path)
    again = CTVolume.from_image(sitk.ReadImage(str(tmp_path / "demo_ct.nrrd")))
    assert again.geometry == scan.geometry
    np.testing.assert_array_equal(again.hu, scan.hu)
    assert json.loads((tmp_path / "demo_truth.json").read_text(encoding="utf-8")) == truth
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo_ct.nrrd", "demo_truth.json"]


def test_a_source_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"absent\.nrrd"):
        make_demo_volume(tmp_path / "absent.nrrd", tmp_path / "out")
    assert not (tmp_path / "out").exists()
