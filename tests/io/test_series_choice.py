"""Which series of a study is read, and what is said of the others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from klip_engine.describe import describe
from klip_engine.errors import InputError, UsageError
from klip_engine.io import read_ct
from klip_engine.io.kernels import Sharpness, sharpness

from ..conftest import run_cli
from .dicom_files import AXIAL, CORONAL, ct_values, straight_positions, write_series

STUDY = generate_uid()


@pytest.fixture
def add(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Adds a series to the study: its number, slices, their distance, orientation and tags; gives its HU."""

    def write(
        number: int, count: int = 6, gap: float = 2.0, orientation: Any = AXIAL, uid: str | None = None, **tags: Any
    ) -> np.ndarray:
        def edit(dataset: Dataset, k: int) -> None:
            dataset.SeriesNumber, dataset.StudyInstanceUID = number, STUDY
            for keyword, value in tags.items():
                setattr(dataset, keyword, value)

        hu = ct_values((count, 40, 48), seed=number)
        positions = straight_positions(count, gap, orientation)
        folder = tmp_path / "study" / f"{number}-{count}-{len(list(tmp_path.rglob('*')))}"
        write_series(folder, hu, positions, orientation=orientation, series=uid, edit=edit)
        return hu

    return write


def told(tmp_path: Path) -> str:
    (notice,) = read_ct(tmp_path / "study").notices
    return notice


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "count": 20}, "localizer, a scout view"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "MIP"], "count": 20}, "a picture made from a scan"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"], "count": 8}, "derived images"),
        ({"ImageType": ["ORIGINAL", "SECONDARY", "AXIAL"], "count": 8}, "derived images"),
        ({"orientation": CORONAL, "count": 20}, "coronal"),
        ({"gap": 0.001, "count": 20}, "its slices make no complete volume"),
        ({"gap": 0.1, "count": 20}, "covers only 2 mm"),
        ({"gap": 7.5, "count": 2, "ConvolutionKernel": "B30f"}, "slices 7.5 mm apart"),
        ({"ConvolutionKernel": "B70f", "count": 8}, "sharp kernel B70f"),
        ({"count": 5}, "only 5 slices"),
        ({}, "as good, but number 5 comes first"),
    ],
)
def test_why_a_series_is_passed_over(add, tmp_path: Path, other: dict[str, Any], reason: str) -> None:
    if other.get("gap") == 0.001:
        other = other | {"ImagePositionPatient": ["0", "0", "0"], "gap": 2.0}
    wanted = add(5)
    add(7, **other)
    assert np.array_equal(read_ct(tmp_path / "study").volume.hu, wanted)
    assert told(tmp_path) == (
        f"Of 2 CT series, number 5 was read (axial, 6 slices, 2.00 mm apart). Left out: number 7 ({reason})."
    )


def test_a_soft_kernel_comes_before_an_unknown_one_and_more_slices(add, tmp_path: Path) -> None:
    add(2, count=12, gap=1.0, ConvolutionKernel="LUNG")
    add(3, count=12, gap=1.0)
    soft = add(4, ConvolutionKernel="STANDARD")
    assert np.array_equal(read_ct(tmp_path / "study").volume.hu, soft)
    assert "number 2 (sharp kernel LUNG), number 3 (kernel not known to be soft)" in told(tmp_path)


def test_a_derived_scan_comes_before_an_original_test_bolus(add, tmp_path: Path) -> None:
    scan = add(2, count=20, ImageType=["DERIVED", "PRIMARY", "AXIAL"])
    add(3)
    assert np.array_equal(read_ct(tmp_path / "study").volume.hu, scan)


def test_series_of_the_same_number_are_told_by_their_hash(add, tmp_path: Path) -> None:
    add(5)
    add(5, count=4)
    rows = describe(str(tmp_path / "study"))["series"]
    notice = told(tmp_path)
    assert all(f"number 5 {row['series']}" in notice for row in rows)


def test_a_rule_that_all_series_break_passes_none_over(add, tmp_path: Path) -> None:
    chosen = add(2, orientation=CORONAL, ConvolutionKernel="B70f")
    add(3, orientation=CORONAL, ConvolutionKernel="B80f", count=4)
    assert np.array_equal(read_ct(tmp_path / "study").volume.hu, chosen)


def test_where_no_series_makes_a_volume_the_best_ones_trouble_is_said(add, tmp_path: Path) -> None:
    add(2, count=3, ImagePositionPatient=["0", "0", "0"])
    add(3, count=9, ImagePositionPatient=["0", "0", "0"])
    with pytest.raises(InputError, match="8 duplicate slice position"):
        read_ct(tmp_path / "study")


def test_a_series_is_chosen_by_uid_number_or_hash(add, tmp_path: Path) -> None:
    uid = generate_uid()
    add(5)
    short = add(7, count=4, uid=uid)
    rows = describe(str(tmp_path / "study"))["series"]
    assert [(row["number"], row["chosen"]) for row in rows] == [("5", True), ("7", False)]
    for name in (uid, "7", rows[1]["series"]):
        loaded = read_ct(tmp_path / "study", series=name)
        assert np.array_equal(loaded.volume.hu, short)
        assert loaded.notices == ()
    add(7, count=4)
    with pytest.raises(UsageError, match="2 CT series with number 7"):
        read_ct(tmp_path / "study", series="7")


def test_several_studies_are_said(add, tmp_path: Path) -> None:
    add(5)
    add(7, count=4, StudyInstanceUID=generate_uid())
    assert "The CT series come from 2 studies" in read_ct(tmp_path / "study").notices[0]


def test_info_counts_the_images_of_a_scout_and_says_what_it_is(add, tmp_path: Path, capsys) -> None:
    add(5)
    add(1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], count=1)
    code, out, err = run_cli(capsys, "info", tmp_path / "study")
    assert code == 0
    scout = json.loads(out)["series"][0]
    assert (scout["number"], scout["slices"], scout["chosen"]) == ("1", 1, False)
    assert scout["reason"] == "localizer, a scout view"
    assert re.search(r"^ *1 +\w+ +1 .* localizer, a scout view$", err, re.MULTILINE)


def test_info_prints_the_series(add, tmp_path: Path, capsys) -> None:
    uid = generate_uid()
    add(5, ConvolutionKernel="B30f")
    add(7, ConvolutionKernel="B70f", uid=uid)
    code, out, err = run_cli(capsys, "info", tmp_path / "study")
    assert code == 0
    assert '"reason": "sharp kernel B70f"' in out
    lines = [line for line in err.splitlines() if "axial" in line]
    assert "B30f" in lines[0]
    assert lines[0].endswith("read")
    assert lines[1].endswith("sharp kernel B70f")
    assert uid not in out + err
    assert "Secret" not in out + err


@pytest.mark.parametrize(
    ("kernel", "family"),
    [
        *(
            (name, Sharpness.SOFT)
            for name in ("B30f", "Br40d", "I31s", "STANDARD", "soft", "FC08", "B", "C", "Qr40")
        ),
        *(
            (name, Sharpness.SHARP)
            for name in ("B70f", "Bl57", "LUNG", "BONEPLUS", "FC52", "FC30", "YC", "L", "H60s")
        ),
        *((name, Sharpness.UNKNOWN) for name in ("", "XYZ", "FC99", "B3", "Standard kernel of a new maker")),
    ],
)
def test_kernels_of_the_makers(kernel: str, family: Sharpness) -> None:
    assert sharpness(kernel) is family
