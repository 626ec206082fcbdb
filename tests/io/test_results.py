"""What is written can be read by others, lies where the input lies, and follows the contract."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from klip_engine.detection import NOTICE, Detection
from klip_engine.errors import ResourceError
from klip_engine.io import read_ct, write_results
from klip_engine.version import __version__

FILES = [
    "findings.csv",
    "findings.json",
    "klip-working.nrrd",
    "klip.nrrd",
    "reconstruction.nrrd",
    "regions.nrrd",
    "report.html",
]


@pytest.mark.parametrize(
    ("file", "pixel"),
    [
        ("reconstruction.nrrd", sitk.sitkInt16),
        ("klip.nrrd", sitk.sitkFloat32),
        ("regions.nrrd", sitk.sitkUInt16),
    ],
)
def test_volumes_lie_on_the_grid_of_the_input(tmp_path: Path, detection: Detection, file: str, pixel: int) -> None:
    write_results(detection, tmp_path / "out")
    image = sitk.ReadImage(str(tmp_path / "out" / file))
    geometry = detection.geometry
    assert image.GetPixelID() == pixel
    assert image.GetSize() == geometry.size
    assert image.GetSpacing() == pytest.approx(geometry.spacing, abs=1e-12)
    assert image.GetOrigin() == pytest.approx(geometry.origin, abs=1e-12)
    assert image.GetDirection() == pytest.approx(geometry.direction, abs=1e-12)


def test_findings_are_found_in_the_volumes_at_their_positions(tmp_path: Path, detection: Detection) -> None:
    write_results(detection, tmp_path / "out")
    regions = sitk.ReadImage(str(tmp_path / "out" / "regions.nrrd"))
    findings = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    for finding in findings:
        index = regions.TransformPhysicalPointToIndex(finding["centroid_lps_mm"])
        assert regions[index] == finding["label"]


def test_reconstruction_can_be_read_as_a_ct(tmp_path: Path, detection: Detection) -> None:
    write_results(detection, tmp_path / "out")
    loaded = read_ct(tmp_path / "out" / "reconstruction.nrrd")
    assert loaded.volume.geometry.matrix == pytest.approx(detection.geometry.matrix)


def test_findings_json_follows_the_contract(tmp_path: Path, detection: Detection) -> None:
    write_results(detection, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert document["schema"] == "klip-findings/1"
    assert document["engine"] == __version__
    assert document["notice"] == NOTICE
    assert document["notices"] == ["First notice."]
    assert document["threshold"] == 1.5
    assert set(document) == {
        "schema",
        "engine",
        "notice",
        "notices",
        "prior",
        "settings",
        "input",
        "threshold",
        "null",
        "working_slices",
        "slice_means_hu",
        "slices",
        "findings",
        "timing",
    }
    assert set(document["prior"]) == {"name", "hash"}
    assert set(document["timing"]) == {"total_s", "network_s", "network_evaluations"}
    assert all(set(s) == {"index", "position_mm", "score", "p_value"} for s in document["slices"])
    keys = {"label", "score", "p_value", "centroid_lps_mm", "volume_ml", "slice_range"}
    assert all(set(f) == keys for f in document["findings"])


def test_json_is_strict(tmp_path: Path, detection_with: Callable[..., Detection]) -> None:
    detection = detection_with(
        p_value=None,
        threshold=np.float32("inf"),
        settings={"array": np.arange(3), "bad": float("nan"), "path": Path("x"), "flag": np.bool_(True)},
    )
    write_results(detection, tmp_path / "out")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "out" / "findings.json").read_text()
    document = json.loads(text, parse_constant=refuse)
    assert document["threshold"] is None
    assert document["settings"] == {"array": [0, 1, 2], "bad": None, "path": "x", "flag": True}
    assert document["findings"][0]["p_value"] is None


def test_csv_is_the_same_table(tmp_path: Path, detection: Detection) -> None:
    write_results(detection, tmp_path / "out")
    with (tmp_path / "out" / "findings.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2
    for row, finding in zip(rows, detection.findings, strict=True):
        assert int(row["label"]) == finding.label
        assert float(row["score"]) == finding.score
        assert float(row["p_value"]) == finding.p_value
        assert float(row["z_lps_mm"]) == finding.centroid_lps_mm[2]
        assert (int(row["first_slice"]), int(row["last_slice"])) == finding.slice_range


def test_nothing_is_left_when_writing_fails(tmp_path: Path, detection: Detection) -> None:
    def fail(folder: Path) -> None:
        assert sorted(p.name for p in folder.iterdir()) == FILES
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_results(detection, tmp_path / "out", extras=[fail])
    assert list(tmp_path.iterdir()) == []


def test_volume_that_cannot_be_written_is_a_resource_error(
    tmp_path: Path, detection: Detection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise RuntimeError("ITK ERROR: no space")

    monkeypatch.setattr(sitk, "WriteImage", fail)
    with pytest.raises(ResourceError, match=r"reconstruction\.nrrd"):
        write_results(detection, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_extras_become_part_of_the_result(tmp_path: Path, detection: Detection) -> None:
    write_results(detection, tmp_path / "out", extras=[lambda f: (f / "seg.dcm").touch()])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted([*FILES, "seg.dcm"])
    write_results(detection, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == FILES


def test_volumes_do_not_stay_in_memory(tmp_path: Path, detection: Detection) -> None:
    write_results(detection, tmp_path / "out")
    assert not {"reconstruction", "score", "regions"} & set(vars(detection))


def test_result_without_a_source_volume_is_written(tmp_path: Path, detection: Detection) -> None:
    write_results(replace(detection, source=None), tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == FILES
