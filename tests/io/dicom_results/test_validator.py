"""`dciodvfy` of dicom3tools has nothing to say about the objects but what is listed here, with the reason."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from klip_engine.io.dicom_results import ALL, DicomObject

from .cases import Case

ALLOWED = {
    "Warning - Unrecognized defined term <99KLIP> for value 1 of attribute <Coding Scheme Designator>": (
        "a private coding scheme, declared in Coding Scheme Identification Sequence as PS3.16 8 asks for"
    ),
}
ALLOWED_LABEL_MAP = ALLOWED | {
    "Error - Information Object Not found": "Label Map Segmentation (2024) is younger than the validator",
    "Error - SegmentNumber not monotonically increasing from one by one - have SegmentSequence item number 1 "
    "(from one) with SegmentNumber of 0": "label maps describe their background, which is number 0 (C.8.20.2)",
}


def complaints(path: Path, allowed: dict[str, str]) -> list[str]:
    """What the validator says of a file and nobody has explained."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("needs dciodvfy (Debian: dicom3tools), which is not here")
    result = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    lines = (result.stdout + result.stderr).splitlines()
    return [line for line in lines if line.startswith(("Error", "Warning")) and line not in allowed]


def test_every_object_in_every_orientation(case: Case, tmp_path: Path) -> None:
    files = case.write(tmp_path / "dicom")
    assert list(files) == list(ALL)
    for path in files.values():
        assert complaints(path, ALLOWED) == [], path.name


@pytest.mark.parametrize("findings", [0, 40])
def test_no_finding_and_many(tmp_path: Path, case_with: Callable[..., Case], findings: int) -> None:
    for path in case_with(findings=findings).write(tmp_path / "dicom").values():
        assert complaints(path, ALLOWED) == [], path.name


def test_label_map(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    path = case_with().write(tmp_path / "dicom", [DicomObject.LABELMAP])["labelmap"]
    assert complaints(path, ALLOWED_LABEL_MAP) == []


def test_the_validator_would_complain(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    from .cases import read

    path = case_with().write(tmp_path / "dicom", [DicomObject.SEG])["seg"]
    dataset = read(path)
    del dataset.SegmentSequence
    dataset.save_as(path)
    assert any("SegmentSequence" in line for line in complaints(path, ALLOWED))
