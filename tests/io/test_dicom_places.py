"""The same series from a folder, an archive, a DICOMDIR and a list; nothing outside them is touched."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import config
from pydicom.fileset import FileSet

from klip_engine.errors import InputError
from klip_engine.io import archives, read_ct

from .dicom_files import (
    AXIAL,
    ct_values,
    straight_positions,
    write_directory_index,
    write_dose_report,
    write_series,
)
from .test_bad_input import refusal

HU = ct_values()
POSITIONS = straight_positions(len(HU), 2.0, AXIAL)


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path / "series", HU, POSITIONS)


def zipped(path: Path, files: list[Path], names: list[str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, file in enumerate(files):
            archive.write(file, names[number] if names else f"study/{file.name}")
    return path


def of_a_study(file: Path) -> pydicom.Dataset:
    """With what an index asks for."""
    dataset = pydicom.dcmread(file)
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20200101", "120000", "1", "1"
    dataset.StudyInstanceUID = "1.2.3"
    return dataset


def disc(folder: Path, files: list[Path]) -> Path:
    """A file set as discs have it, written by pydicom: DICOMDIR and files without their names."""
    file_set = FileSet()
    for file in files:
        file_set.add(of_a_study(file))
    file_set.write(folder)
    return folder / "DICOMDIR"


# --- archives


def test_an_archive_is_the_same_series_and_leaves_nothing_behind(
    tmp_path: Path, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "readme.txt").write_text("not DICOM")
    loaded = read_ct(zipped(tmp_path / "study.zip", [*series, tmp_path / "readme.txt"]))
    assert np.array_equal(loaded.volume.hu, HU)
    assert loaded.notices == ()
    assert loaded.dicom_files is not None
    places = [pydicom.dcmread(path).ImagePositionPatient[2] for path in loaded.dicom_files]
    assert places == pytest.approx(POSITIONS[:, 2])
    (folder,) = (tmp_path / "tmp").iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    assert len(list(folder.rglob("*.txt"))) == 0
    del loaded
    gc.collect()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("name", ["../../evil.dcm", "/tmp/klip-evil.dcm", "a/../../evil.dcm", "C:\\evil.dcm"])
def test_no_entry_leaves_the_private_folder(
    tmp_path: Path, series: list[Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "one" / "two"
    inner.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(inner))
    path = zipped(tmp_path / "study.zip", series, [name, *(f"{k}.dcm" for k in range(1, 6))])
    before = set(tmp_path.rglob("*"))
    loaded = read_ct(path)
    assert np.array_equal(loaded.volume.hu, HU)
    written = set(tmp_path.rglob("*")) - before
    assert all(inner in new.parents for new in written)
    assert not Path("/tmp/klip-evil.dcm").exists()


def test_errors_name_the_archive_and_not_the_entries(tmp_path: Path, series: list[Path]) -> None:
    series[2].write_bytes(series[2].read_bytes()[:-400])
    names = [f"Secretname^Patient/{k}.dcm" for k in range(6)]
    sentence = refusal(zipped(tmp_path / "study.zip", series, names))
    assert "study.zip/entry-3 cannot be decoded" in sentence
    assert "klip-" not in sentence


def test_archive_with_a_password(tmp_path: Path, series: list[Path]) -> None:
    path = zipped(tmp_path / "study.zip", series)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1  # general purpose flag, bit 0: encrypted (APPNOTE 4.4.4)
    path.write_bytes(content)
    assert "protected by a password" in refusal(path)


def test_damaged_archive(tmp_path: Path, series: list[Path]) -> None:
    path = zipped(tmp_path / "study.zip", series)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged or incomplete zip archive" in refusal(path)
    spoiled = bytearray(whole)
    spoiled[len(whole) // 2 : len(whole) // 2 + 40] = bytes(40)
    path.write_bytes(spoiled)
    assert "damaged or incomplete zip archive" in refusal(path)


def test_archive_without_dicom(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "holds no DICOM files" in refusal(zipped(tmp_path / "study.zip", [tmp_path / "notes.txt"]))


def test_archive_made_to_fill_the_disk(tmp_path: Path, series: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "RATIO_MATTERS", 2**20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(128) + b"DICM" + bytes(2**22))
    assert "more than a CT study has" in refusal(tmp_path / "bomb.zip")
    monkeypatch.setattr(archives, "TOTAL_LIMIT", 1000)
    assert "more than a CT study has" in refusal(zipped(tmp_path / "study.zip", series))


# --- DICOMDIR


def test_a_disc_is_read_by_its_index_or_its_folder(tmp_path: Path, series: list[Path]) -> None:
    index = disc(tmp_path / "disc", series)
    write_series(tmp_path / "disc" / "unlisted", ct_values((3, 40, 48)), straight_positions(3, 2.0, AXIAL))
    loaded = read_ct(index)
    assert np.array_equal(loaded.volume.hu, HU)
    assert loaded.notices == ()
    assert np.array_equal(read_ct(index.parent).volume.hu, HU)


def test_names_on_a_disc_may_have_another_case(tmp_path: Path, series: list[Path]) -> None:
    index = disc(tmp_path / "disc", series)
    for path in sorted(index.parent.rglob("*"), reverse=True):
        version = ";1" if path.is_file() and path != index else ""
        path.rename(path.with_name(path.name.lower() + version))
    assert np.array_equal(read_ct(tmp_path / "disc" / "dicomdir").volume.hu, HU)


def test_an_index_written_by_dcmtk(tmp_path: Path, series: list[Path]) -> None:
    if shutil.which("dcmmkdir") is None:
        pytest.skip("needs dcmmkdir of DCMTK")
    folder = tmp_path / "disc"
    folder.mkdir()
    for number, path in enumerate(series):
        of_a_study(path).save_as(folder / f"IM{number}", enforce_file_format=True)
    subprocess.run(["dcmmkdir", "+r", "+id", folder, "-Pfl", "+D", folder / "DICOMDIR"], check=True, cwd=folder)
    assert np.array_equal(read_ct(folder / "DICOMDIR").volume.hu, HU)


@pytest.mark.parametrize("kind", ["index", "folder", "archive"])
def test_images_missing_from_a_disc(tmp_path: Path, series: list[Path], kind: str) -> None:
    index = disc(tmp_path / "disc", series)
    files = [path for path in index.parent.rglob("*") if path.is_file() and path != index]
    max(files).unlink()  # an end: the slices that are left make a volume
    source = {"index": index, "folder": index.parent}.get(kind) or Path(
        shutil.make_archive(str(tmp_path / "disc"), "zip", tmp_path / "disc")
    )
    sentence = refusal(source)
    assert "1 of the images that its DICOMDIR lists for the series are missing" in sentence


def test_images_missing_from_another_series_are_a_notice(tmp_path: Path, series: list[Path]) -> None:
    other = write_series(tmp_path / "other", ct_values((3, 40, 48), seed=1), straight_positions(3, 2.0, AXIAL))
    index = disc(tmp_path / "disc", [*series, *other])
    uid = pydicom.dcmread(other[0]).SeriesInstanceUID
    files = [path for path in index.parent.rglob("*") if path.is_file() and path != index]
    next(path for path in files if pydicom.dcmread(path).SeriesInstanceUID == uid).unlink()
    loaded = read_ct(index)
    assert np.array_equal(loaded.volume.hu, HU)
    assert "1 CT images of other series that the DICOMDIR lists are missing." in loaded.notices


@pytest.mark.parametrize("reference", [["..", "0000.dcm"], ["", "etc"], ["C:", "a"], ["..\\..\\a"]])
def test_an_index_cannot_point_outside_its_folder(tmp_path: Path, series: list[Path], reference: list[str]) -> None:
    index = disc(tmp_path / "disc", series)
    dataset = pydicom.dcmread(index)
    record = next(record for record in dataset.DirectoryRecordSequence if "ReferencedFileID" in record)
    with config.disable_value_validation():
        record.ReferencedFileID = reference
        dataset.save_as(index)
    assert "outside its folder" in refusal(index)


def test_a_link_that_leads_out_of_a_disc_is_missing(tmp_path: Path, series: list[Path]) -> None:
    index = disc(tmp_path / "disc", series)
    victim = max(path for path in index.parent.rglob("*") if path.is_file() and path != index)
    shutil.move(victim, tmp_path / "outside")
    os.symlink(tmp_path / "outside", victim)
    assert "missing" in refusal(index)


def test_an_index_whose_files_are_gone(tmp_path: Path, series: list[Path]) -> None:
    index = disc(tmp_path / "disc", series)
    moved = tmp_path / "elsewhere" / "DICOMDIR"
    moved.parent.mkdir()
    shutil.copy(index, moved)
    assert "none of the 6 files that" in refusal(moved)


# --- lists


def test_a_list_of_files(tmp_path: Path, series: list[Path]) -> None:
    path = tmp_path / "list.txt"
    lines = ["# five slices", "", *(f"series/{file.name}" for file in series[:5]), str(series[0])]
    path.write_text("\r\n".join(lines), encoding="utf-8-sig")
    assert np.array_equal(read_ct(path).volume.hu, HU[:5])
    assert np.array_equal(read_ct(series[1:]).volume.hu, HU[1:])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("# nothing\n", "names no files"),
        ("series/0000.dcm\nSecretname^Patient.dcm\n", "line 2 of"),
        ("list.txt\n", "not DICOM"),
        ("series\n", "names no file that exists"),
        ("\0\n", "names no file that exists"),
    ],
)
def test_a_list_that_cannot_be_used(tmp_path: Path, series: list[Path], content: str, words: str) -> None:
    (tmp_path / "list.txt").write_text(content)
    assert words in refusal(tmp_path / "list.txt")


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\xff\x00")
    assert "is not a text" in refusal(tmp_path / "list.txt")


def test_a_sequence_of_files_that_is_empty_or_incomplete(tmp_path: Path, series: list[Path]) -> None:
    with pytest.raises(InputError, match="list of files is empty"):
        read_ct([])
    with pytest.raises(InputError, match=r"gone\.dcm names no file"):
        read_ct([*series, tmp_path / "gone.dcm"])


# --- folders


def test_copies_of_files_are_left_out_with_a_notice(tmp_path: Path, series: list[Path]) -> None:
    shutil.copytree(tmp_path / "series", tmp_path / "series" / "copy")
    loaded = read_ct(tmp_path / "series")
    assert np.array_equal(loaded.volume.hu, HU)
    assert loaded.notices == ("6 files are exact copies of others and were left out.",)


def test_one_copy_is_one_file(tmp_path: Path, series: list[Path]) -> None:
    shutil.copy(series[0], tmp_path / "series" / "again.dcm")
    assert read_ct(tmp_path / "series").notices == ("1 file is an exact copy of another and was left out.",)


def test_files_that_share_their_uid_but_not_their_bytes_are_all_read(tmp_path: Path) -> None:
    def same(dataset: pydicom.Dataset, k: int) -> None:
        dataset.SOPInstanceUID = "1.2.3"

    write_series(tmp_path / "series", HU, POSITIONS, edit=same)
    assert np.array_equal(read_ct(tmp_path / "series").volume.hu, HU)


def test_an_empty_index_and_a_dose_report_do_not_hinder(tmp_path: Path, series: list[Path]) -> None:
    write_directory_index(tmp_path / "series" / "DICOMDIR")
    write_dose_report(tmp_path / "series" / "dose.dcm")
    loaded = read_ct(zipped(tmp_path / "study.zip", sorted((tmp_path / "series").iterdir())))
    assert np.array_equal(loaded.volume.hu, HU)
    assert loaded.notices == ("1 DICOM object that is not a CT image was left out.",)
