"""The command line as other programs see it: exit codes, JSON lines, files written or not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate

from klip_engine.cli.options import SettingsOptions
from klip_engine.presets import choose_settings
from klip_engine.settings import SCORES
from klip_engine.volume import Geometry
from tests.conftest import run_cli, torso
from tests.io.dicom_files import AXIAL, straight_positions, write_series
from tests.pipeline.conftest import WIDE_BLOCKS

QUICK = ["--steps", "6", "--samples", "2", "--score", "klip", "--batch-slices", "4"]


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    hu = torso(4)
    hu[2, 46:50, 58:62] = 1800
    path = tmp_path / "ct.nrrd"
    sitk.WriteImage(Geometry((120, 96, 4), (4.0, 4.0, 5.0)).image(hu.astype(np.int16)), path)
    return path


def test_detect_writes_the_contract_and_speaks_json(capsys, ct, prior, tmp_path):
    out, settings = tmp_path / "out", tmp_path / "settings.json"
    settings.write_text(json.dumps(WIDE_BLOCKS.to_dict()))
    arguments = ["--prior", prior, "--settings", settings, "--progress", "json", "--seed", "5"]
    code, printed, _ = run_cli(capsys, "detect", ct, "-o", out, *arguments)
    assert code == 0
    events = [json.loads(line) for line in printed.splitlines()]
    assert events[0]["event"] == "start"
    assert events[-1]["event"] == "done"
    assert {"start", "progress", "done"} == {e["event"] for e in events}
    assert {p.name for p in out.iterdir()} == {
        "reconstruction.nrrd", "klip.nrrd", "klip-working.nrrd", "regions.nrrd", "findings.json", "findings.csv",
        "report.html",
    }  # fmt: skip
    findings = json.loads((out / "findings.json").read_text())
    assert findings["schema"] == "klip-findings/1"
    assert findings["settings"]["seed"] == 5
    assert len(findings["findings"]) == events[-1]["findings"] >= 1
    labels = sitk.ReadImage(out / "regions.nrrd")
    assert labels.GetSize() == (120, 96, 4)
    assert sitk.GetArrayFromImage(labels)[2, 48, 60] == 1


@pytest.fixture
def few(monkeypatch, prior) -> list[str]:
    """Settings no other test uses, so that their null distribution may be a coarse and quick one."""
    monkeypatch.setattr("klip_engine.pipeline.NULL_SLICES_ON_DEMAND", 4)
    return ["--prior", str(prior), "--steps", "3", "--samples", "1", "--score", "klip"]


def test_saved_updates_lie_in_the_result_one_artifact_per_slice(capsys, ct, few, tmp_path):
    out = tmp_path / "new" / "out"
    code, _, err = run_cli(capsys, "detect", ct, "-o", out, *few, "--save-updates")
    assert code == 0, err
    assert sorted(p.name for p in (out / "updates").iterdir()) == [f"slice-000{n}.npz" for n in range(4)]
    with np.load(out / "updates" / "slice-0002.npz", allow_pickle=False) as stored:
        assert stored["normalized_updates"].shape == (3, 1, 1, 80, 96)
        assert stored["g_values"].shape == (3,)
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    code, _, err = run_cli(capsys, "detect", ct, "-o", out, *few)
    assert code == 0, err
    assert not (out / "updates").exists()  # an earlier result is replaced, its updates included


def test_nothing_is_left_of_updates_when_a_detection_fails(capsys, ct, few, tmp_path, monkeypatch):
    import klip_engine.io

    monkeypatch.setattr(klip_engine.io, "write_results", lambda *_, **__: 1 / 0)
    out = tmp_path / "new" / "out"
    code, _, _ = run_cli(capsys, "detect", ct, "-o", out, *few, "--save-updates")
    assert code == 1
    assert not out.parent.exists()


def test_what_is_not_a_result_is_not_overwritten(capsys, ct, prior, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").write_text("years of work")
    code, _, err = run_cli(capsys, "detect", ct, "-o", tmp_path / "out", "--prior", prior, *QUICK)
    assert code == 2
    assert "not empty" in err
    assert (tmp_path / "out" / "thesis.docx").read_text() == "years of work"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sampler", "magic"], "no sampler is called 'magic'"),
        (["--operator", "xray"], "Unknown operator"),
        (["--score", "best"], "no score is called 'best'"),
        (["--false-alarms", "1.5"], "between 0 and 1"),
        (["--steps", "many"], "steps"),
        (["--nonsense"], "nonsense"),
    ],
)
def test_usage_errors_are_exit_code_2(capsys, ct, prior, tmp_path, arguments, sentence):
    code, _, err = run_cli(capsys, "detect", ct, "-o", tmp_path / "out", "--prior", prior, *arguments)
    assert code == 2
    assert sentence in err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def _volume(path: Path, hu: np.ndarray, spacing=(4.0, 4.0, 5.0)) -> Path:
    sitk.WriteImage(Geometry(hu.shape[::-1], spacing).image(hu), path)
    return path


def _text(folder: Path) -> Path:
    (folder / "notes.nrrd").write_text("not an image")
    return folder / "notes.nrrd"


def _dicom(folder: Path, slices: list[int], edit=None) -> Path:
    """A series with slices at the given multiples of 5 mm."""
    positions = straight_positions(10, 5.0, AXIAL)[slices]
    write_series(folder / "series", torso(len(slices)), positions, pixel_mm=(4.0, 4.0), edit=edit)
    return folder / "series"


def _set(**attributes):
    """An edit of the third slice."""

    def edit(dataset, k):
        if k == 2:
            for name, value in attributes.items():
                setattr(dataset, name, value)

    return edit


def _unsupported_syntax(dataset, k):
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG-2 video
    dataset.PixelData = encapsulate([b"\0" * 64])
    dataset["PixelData"].is_undefined_length = True


def _every(**attributes):
    def edit(dataset, k):
        for name, value in attributes.items():
            setattr(dataset, name, value)

    return edit


def _nan(folder: Path) -> Path:
    hu = torso(3)
    hu[1, 5, 5] = np.nan
    return _volume(folder / "nan.nrrd", hu)


def _raw(folder: Path) -> Path:
    return _volume(folder / "raw.nrrd", (torso(3) + 1024).clip(0).astype(np.int16))


def _small(folder: Path) -> Path:
    return _volume(folder / "small.nrrd", torso(3)[:, :20, :20])


def _air(folder: Path) -> Path:
    return _volume(folder / "air.nrrd", np.full((3, 64, 64), -1000, np.int16))


def _projections(folder: Path) -> Path:
    (folder / "scan.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    return folder / "scan.h5"


BAD_INPUT = {
    "no such file": (lambda folder: folder / "absent.nrrd", "absent.nrrd"),
    "not an image": (_text, "notes.nrrd"),
    "empty folder": (lambda folder: folder, ""),
    "not CT": (lambda folder: _dicom(folder, [0, 1, 2], _every(Modality="MR")), "CT"),
    "missing slice": (lambda folder: _dicom(folder, [0, 1, 2, 5, 6, 7]), "missing"),
    "duplicate slice": (lambda folder: _dicom(folder, [0, 1, 2, 2, 3]), "duplicate"),
    "uneven slices": (
        lambda folder: _dicom(folder, [0, 1, 2, 3], _set(ImagePositionPatient=[-101.25, -87.5, 323.8])),
        "spacing",
    ),
    "mixed pixel spacing": (
        lambda folder: _dicom(folder, [0, 1, 2, 3], _set(PixelSpacing=[2.0, 2.0])),
        "pixel spacing",
    ),
    "mixed orientation": (
        lambda folder: _dicom(folder, [0, 1, 2, 3], _set(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])),
        "orientation",
    ),
    "only localizers": (
        lambda folder: _dicom(folder, [0, 1, 2], _every(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
        "localizer",
    ),
    "gantry tilt that the positions contradict": (
        lambda folder: _dicom(folder, [0, 1, 2, 3], _every(GantryDetectorTilt=15.0)),
        "tilt",
    ),
    "unsupported transfer syntax": (lambda folder: _dicom(folder, [0, 1, 2], _unsupported_syntax), "syntax"),
    "no rescale intercept": (
        lambda folder: _dicom(folder, [0, 1, 2], lambda dataset, k: dataset.__delattr__("RescaleIntercept")),
        "Hounsfield",
    ),
    "not a number": (_nan, "NaN"),
    "raw values": (_raw, "Hounsfield"),
    "too small": (_small, "32"),
    "nothing in it": (_air, "not a CT"),
    "projections without units": (_projections, "scan.h5"),
}


@pytest.mark.parametrize("kind", BAD_INPUT)
def test_bad_input_is_exit_code_3_one_sentence_and_no_files(capsys, prior, tmp_path, kind):
    make, word = BAD_INPUT[kind]
    (tmp_path / "in").mkdir()
    source = make(tmp_path / "in")
    code, out, err = run_cli(
        capsys, "detect", source, "-o", tmp_path / "out", "--prior", prior, *QUICK, "--progress", "none"
    )
    assert code == 3, err
    assert out == ""
    assert err.startswith("klip-engine: ")
    assert len(err.strip().splitlines()) == 1
    assert word.lower() in err.lower()
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_prior_of_another_schema_is_bad_input(capsys, ct, prior, tmp_path):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(prior, other)
    metadata = other / "configs" / "metadata.json"
    metadata.write_text(metadata.read_text().replace("klip-prior/1", "klip-prior/9"))
    code, _, err = run_cli(
        capsys, "detect", ct, "-o", tmp_path / "out", "--prior", other, *QUICK, "--progress", "none"
    )
    assert code == 3
    assert "klip-prior/9" in err
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_there_is_exit_code_5(capsys, ct, prior, tmp_path):
    code, _, err = run_cli(capsys, "detect", ct, "-o", tmp_path / "out", "--prior", prior, "--device", "abacus")
    assert code == 5
    assert "abacus" in err


def test_square_brackets_in_paths_and_cures_are_printed_as_they_are(capsys, tmp_path):
    code, _, err = run_cli(capsys, "detect", tmp_path / "[/red]" / "[bold]scan.nrrd", "-o", tmp_path / "out")
    assert code == 3
    assert "[/red]" in err.replace("\n", "")


def test_an_error_is_also_a_json_event(capsys, tmp_path):
    code, out, _ = run_cli(capsys, "detect", tmp_path / "absent", "-o", tmp_path / "out", "--progress", "json")
    event = json.loads(out.splitlines()[-1])
    assert (code, event["event"], event["exit_code"]) == (3, "error", 3)


def test_the_unexpected_is_exit_code_1_without_a_traceback(capsys, ct, prior, tmp_path, monkeypatch):
    import klip_engine.pipeline as pipeline

    monkeypatch.setattr(pipeline, "mark", lambda *_: 1 / 0)
    code, _, err = run_cli(
        capsys, "detect", ct, "-o", tmp_path / "out", "--prior", prior, *QUICK, "--progress", "none"
    )
    assert code == 1
    assert "unexpected ZeroDivisionError" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 4), (signal.SIGINT, 4), (signal.SIGKILL, -9)])
def test_a_run_stopped_in_the_middle_leaves_nothing(ct, prior, tmp_path, number, code):
    """A slow run (many steps and samples) is signalled once the network is at work."""
    command = [
        sys.executable, "-m", "klip_engine", "detect", str(ct), "-o", str(tmp_path / "out"), "--prior",
        str(prior), "--steps", "400", "--samples", "16", "--batch-slices", "1", "--progress", "json",
    ]  # fmt: skip
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "progress":
            break
    process.send_signal(number)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.stdout.close()
    assert process.returncode == code
    assert [p.name for p in tmp_path.iterdir()] == ["ct.nrrd"]


def test_info_describes_a_ct_and_a_prior(capsys, ct, prior):
    code, out, _ = run_cli(capsys, "info", ct)
    assert code == 0
    assert json.loads(out)["input"]["size"] == [120, 96, 4]
    code, out, _ = run_cli(capsys, "info", prior)
    assert code == 0
    assert json.loads(out)["prior"]["name"] == "wiener"


def test_calibrate_keeps_a_null_in_the_bundle_and_detect_uses_it(capsys, ct, prior, tmp_path):
    import shutil

    bundle = tmp_path / "bundle"
    shutil.copytree(prior, bundle)
    code, _, _ = run_cli(capsys, "calibrate", bundle, "--slices", "20", *QUICK, "--progress", "none")
    assert code == 0
    assert len(list((bundle / "null").glob("*.json"))) == 1
    code, _, _ = run_cli(
        capsys, "detect", ct, "-o", tmp_path / "out", "--prior", bundle, *QUICK, "--progress", "none"
    )
    assert code == 0
    assert json.loads((tmp_path / "out" / "findings.json").read_text())["settings"]["null"]["slices"] == 20


def test_healthy_scans_become_the_reference_that_new_settings_are_measured_on(capsys, ct, prior, tmp_path):
    import shutil

    bundle = tmp_path / "bundle"
    shutil.copytree(prior, bundle)
    few = ["--steps", "6", "--samples", "2", "--batch-slices", "4", "--progress", "none"]
    code, _, _ = run_cli(capsys, "calibrate", bundle, "--healthy", ct, "--per-scan", "3", *few)
    assert code == 0
    assert len(list((bundle / "null").glob("*.json"))) == len(SCORES)  # every score, from one set of samples
    other = [*few, "--samples", "1"]  # nobody calibrated these: detect measures the reference itself
    code, _, _ = run_cli(capsys, "detect", ct, "-o", tmp_path / "out", "--prior", bundle, *other)
    assert code == 0
    null = json.loads((tmp_path / "out" / "findings.json").read_text())["settings"]["null"]
    assert null["source"] == "3 slices of 1 healthy scans"
    assert null["slices"] == 3


def test_the_slices_a_built_in_prior_is_compared_with_are_not_replaced(capsys, ct):
    import klip_engine

    files = Path(klip_engine.__file__).parent / "data" / "priors" / "default"
    kept = {path: path.stat().st_mtime_ns for path in files.rglob("*")}
    code, _, err = run_cli(capsys, "calibrate", "default", "--healthy", ct, "--progress", "none")
    assert code == 2
    assert "comes with the engine" in err
    assert "copy the bundle" in err
    assert kept == {path: path.stat().st_mtime_ns for path in files.rglob("*")}


def test_version_and_help(capsys):
    code, out, _ = run_cli(capsys, "--version")
    assert code == 0
    assert out.startswith("klip-engine ")
    code, out, _ = run_cli(capsys, "--help")
    assert code == 0
    for command in ("detect", "demo", "train", "calibrate", "info"):
        assert command in out


def test_the_command_line_offers_every_setting_that_can_be_chosen():
    assert [option.name for option in fields(SettingsOptions)] == list(signature(choose_settings).parameters)
