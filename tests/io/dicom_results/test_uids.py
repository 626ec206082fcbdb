"""The same study, prior and settings give the same files; anything else gives other UIDs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID

from klip_engine.io.dicom_results import ALL, DicomObject

from .cases import Case, read


def test_the_same_result_is_the_same_file(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    first, again = (case_with(name).write(tmp_path / name, list(DicomObject)) for name in ("first", "again"))
    assert {kind: path.read_bytes() for kind, path in first.items()} == {
        kind: path.read_bytes() for kind, path in again.items()
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["settings"].update(seed=1),
        lambda document: document["settings"].update(false_alarms=0.1),
        lambda document: document["prior"].update(hash="sha256:cd34"),
        lambda document: document.update(engine="9.9"),
    ],
)
def test_another_setting_prior_or_engine_is_another_result(
    tmp_path: Path, case_with: Callable[..., Case], change: Callable[[dict[str, Any]], None]
) -> None:
    case = case_with()
    before = _made_here(case.write(tmp_path / "before"))
    file = case.results / "findings.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    assert not before & _made_here(case.write(tmp_path / "after"))


def test_a_series_with_another_slice_is_another_result(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    five, six = case_with("five", shape=(5, 40, 48)), case_with("six", shape=(6, 40, 48))
    assert not _made_here(five.write(tmp_path / "5")) & _made_here(six.write(tmp_path / "6"))


def test_every_object_has_uids_of_its_own_that_are_valid(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    files = case_with().write(tmp_path, list(DicomObject))
    datasets = [read(path) for path in files.values()]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber"):
        assert len({dataset[keyword].value for dataset in datasets}) == len(datasets)
    for uid in _made_here(files):
        assert UID(uid).is_valid
        assert re.fullmatch(r"2\.25\.[1-9]\d{1,38}", uid)


def test_no_uid_or_date_comes_from_elsewhere(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    case = case_with()
    known = {str(e.value) for path in case.folder.iterdir() for e in read(path).iterall() if e.VR == "UI"}
    for path in case.write(tmp_path).values():
        for element in read(path).iterall():
            if element.VR == "UI" and not element.keyword.endswith("ClassUID"):
                assert str(element.value).startswith("2.25.") or str(element.value) in known, element.keyword
            if element.VR in ("DA", "DT") and element.keyword != "PatientBirthDate":
                assert str(element.value) == "20260102", element.keyword


def test_file_names_tell_nothing(tmp_path: Path, case_with: Callable[..., Case]) -> None:
    names = [path.name for path in case_with().write(tmp_path / "dicom").values()]
    assert names == [f"{kind}.dcm" for kind in ALL]


def _made_here(files: dict[str, Path]) -> set[str]:
    """The UIDs of the objects and of everything in them that is not of the source."""
    return {uid for path in files.values() for uid in _uids(read(path))}


def _uids(dataset: Dataset) -> Iterator[str]:
    for element in dataset.iterall():
        if element.VR == "UI" and str(element.value).startswith("2.25."):
            yield str(element.value)
