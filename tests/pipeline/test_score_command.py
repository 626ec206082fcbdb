"""klip-engine score on the published vectors: the published maps and figures, pictures, and bad files by name."""

from __future__ import annotations

import gzip
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from klip_engine.detection import NOTICE
from klip_engine.io.artifacts import write_artifact
from tests.conftest import run_cli
from tests.scoring.test_published import EXPECTED_AUROC, VECTORS

IMAGES = range(4)
SETTING = "b2|t65-85"
HOW = ["--window", 65, 85, "--block", 2]


@pytest.fixture(scope="module")
def vectors() -> dict[str, np.ndarray]:
    with np.load(VECTORS / "inputs.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored}


@pytest.fixture(scope="module")
def files(tmp_path_factory, vectors) -> Path:
    """The vectors as files of the published pipeline, in the folders altered and healthy, with masks and body."""
    folder = tmp_path_factory.mktemp("artifacts")
    for group, name in (("ood", "altered"), ("id", "healthy")):
        (folder / name).mkdir()
        for image in IMAGES:
            updates = vectors[f"{group}_{image}"]
            np.savez(folder / name / f"{image}.npz", normalized_updates=updates, g_values=vectors["g_values"])
    masks = np.stack([vectors[f"mask_{image}"] for image in IMAGES])
    np.savez(folder / "masks.npz", mask=masks, other=np.zeros(3))
    sitk.WriteImage(sitk.GetImageFromArray(masks), folder / "masks.nrrd")
    for image in IMAGES:
        np.save(folder / f"mask_{image}.npy", masks[image])
    np.save(folder / "body.npy", vectors["body"])
    return folder


def _document(out: Path) -> dict:
    document = json.loads((out / "scores.json").read_text())
    assert document["schema"] == "klip-scores/1"
    assert document["notice"] == NOTICE
    return document


def test_published_artifacts_give_the_published_maps_and_figures(capsys, files, tmp_path):
    out = tmp_path / "out"
    masks = ["--mask", files / "masks.npz", "--body", files / "body.npy", "--healthy", files / "healthy"]
    code, printed, err = run_cli(capsys, "score", files / "altered", "-o", out, *HOW, *masks)
    assert code == 0, err
    with np.load(out / "maps.npz", allow_pickle=False) as maps, np.load(VECTORS / "expected_maps.npz") as expected:
        assert len(maps.files) == 8
        for image in IMAGES:  # four files are called alike in both folders: a number tells them apart
            np.testing.assert_array_equal(maps[f"000{image}-{image}"], expected[f"ood_{image}|{SETTING}"])
            np.testing.assert_array_equal(maps[f"000{4 + image}-{image}"], expected[f"id_{image}|{SETTING}"])
    document = _document(out)
    assert document["image_auroc"] == pytest.approx(EXPECTED_AUROC[SETTING]["image_level_mean"], rel=1e-14)
    assert document["dataset_auroc"] == EXPECTED_AUROC[SETTING]["dataset_level"]
    assert document["counts"] == {"artifacts": 4, "healthy": 4, "with_lesion": 4}
    assert "0.993" in printed
    assert NOTICE in printed


@pytest.mark.parametrize("how", ["nrrd", "npy"])
def test_masks_come_in_any_form(capsys, files, tmp_path, how):
    masks = [files / "masks.nrrd"] if how == "nrrd" else [files / f"mask_{image}.npy" for image in IMAGES]
    given = [word for mask in masks for word in ("--mask", mask)]
    arguments = ["-o", tmp_path / "out", *HOW, *given, "--body", files / "body.npy", "--progress", "json"]
    code, printed, err = run_cli(capsys, "score", files / "altered", *arguments)
    assert code == 0, err
    done = json.loads(printed.splitlines()[-1])
    assert done["event"] == "done"
    assert done["image_auroc"] == pytest.approx(EXPECTED_AUROC[SETTING]["image_level_mean"], rel=1e-14)
    assert done["dataset_auroc"] is None
    assert set(done["scores"]) == set("0123")


def test_the_picture_shows_the_map_on_its_scale_with_the_lesion_outlined(capsys, tmp_path):
    """One block is far above the others: its pixels have the colour of the upper end, all others of the lower."""
    updates = np.zeros((3, 1, 1, 16, 24), dtype=np.float32)
    updates[:, :, :, 4:8, 8:12] = 1.0
    mask = np.zeros((16, 24))
    mask[8:12, 16:20] = 1
    np.save(tmp_path / "mask.npy", mask)
    body = np.ones((16, 24))
    path = write_artifact(tmp_path / "file.npz", updates, np.ones(3), body=body, settings={"seed": 0})
    out = tmp_path / "out"
    code, _, err = run_cli(capsys, "score", path, "-o", out, "--block", 4, "--mask", tmp_path / "mask.npy")
    assert code == 0, err
    item = _document(out)["artifacts"][0]
    assert (item["score"], item["highest_block"], item["body"]) == (16.0, [1, 2], "the artifact")
    assert item["image_auroc"] == pytest.approx(11 / 23)
    with Image.open(out / "pictures" / "file.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    shown = pixels[36 : 36 + 16 * 21, 16 : 16 + 24 * 21]  # 21 = 512 / 24 screen pixels each
    assert (shown[4 * 21 : 8 * 21, 8 * 21 : 12 * 21] == (252, 255, 164)).all()
    assert (shown[: 4 * 21] == (0, 0, 4)).all()
    outlined = (shown == (92, 190, 255)).all(axis=-1)
    assert outlined[8 * 21, 16 * 21 : 20 * 21].all()
    assert outlined.sum() == 4 * (4 * 21 - 1)


def test_an_empty_mask_in_a_stack_means_no_lesion_and_no_figure(capsys, files, vectors, tmp_path):
    masks = np.stack([vectors["mask_0"], np.zeros((32, 32), np.uint8)])
    np.savez(tmp_path / "masks.npz", masks)
    altered = [files / "altered" / f"{image}.npz" for image in (0, 1)]
    arguments = ["-o", tmp_path / "out", *HOW, "--mask", tmp_path / "masks.npz", "--body", files / "body.npy"]
    code, _, err = run_cli(capsys, "score", *altered, *arguments)
    assert code == 0, err
    first, second = _document(tmp_path / "out")["artifacts"]
    assert first["image_auroc"] == pytest.approx(EXPECTED_AUROC[SETTING]["image_level"][0], rel=1e-14)
    assert second["image_auroc"] is None


def test_an_earlier_result_is_replaced_and_anything_else_is_not(capsys, files, tmp_path):
    out = tmp_path / "out"
    for block in (2, 4):
        assert run_cli(capsys, "score", files / "altered", "-o", out, "--block", block)[0] == 0
    assert _document(out)["block"] == 4
    assert _document(out)["artifacts"][0]["window"] == [0, 100]
    (out / "thesis.docx").write_text("years of work")
    code, _, err = run_cli(capsys, "score", files / "altered", "-o", out)
    assert code == 2
    assert "thesis.docx" in err
    assert _document(out)["block"] == 4


def _text(path: Path) -> Path:
    path.write_text("not an array")
    return path


def _colour(path: Path) -> Path:
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(path)
    return path


def _huge(path: Path) -> Path:
    """A gigabyte of zeros in a megabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("mask.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": (1000, 1000, 1000)}
        )
        stream.write(bytes(10**6))
    return path


def _huge_image(path: Path) -> Path:
    head = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2000 3000 1000\nencoding: gzip\n\n"
    path.write_bytes(head.encode() + gzip.compress(b"\0"))
    return path


def _array(path: Path, values: np.ndarray, **named: np.ndarray) -> Path:
    if named:
        np.savez(path, values, **named)
    else:
        np.save(path, values, allow_pickle=True)
    return path.with_suffix(".npz" if named else ".npy")


BAD_MASKS = {
    "missing": (lambda folder: folder / "nowhere.npy", "no such file"),
    "text": (lambda folder: _text(folder / "m.npy"), "damaged"),
    "text as image": (lambda folder: _text(folder / "m.nrrd"), "not an image"),
    "text as zip": (lambda folder: _text(folder / "m.npz"), "damaged"),
    "objects": (lambda folder: _array(folder / "m", np.array([{}])), "not a plain NumPy array"),
    "colour": (lambda folder: _colour(folder / "m.png"), "has 3 components; save it as grey"),
    "huge": (lambda folder: _huge(folder / "m.npz"), "the shape .1000, 1000, 1000., more than"),
    "huge image": (lambda folder: _huge_image(folder / "m.nrrd"), "the shape .1000, 3000, 2000., more than"),
    "two arrays": (lambda folder: _array(folder / "m", np.ones((32, 32)), second=np.ones(2)), "call one 'mask'"),
    "rank": (lambda folder: _array(folder / "m", np.ones(32)), "not .rows, columns."),
    "words": (lambda folder: _array(folder / "m", np.full((32, 32), "a")), "not numbers"),
    "nan": (lambda folder: _array(folder / "m", np.full((32, 32), np.nan)), "NaN"),
    "size": (lambda folder: _array(folder / "m", np.ones((16, 32))), "is 16 x 32, .* is 32 x 32"),
    "number": (lambda folder: _array(folder / "m", np.ones((3, 32, 32))), "3 masks for 1 artifact"),
    "empty": (lambda folder: _array(folder / "m", np.zeros((32, 32))), "no pixel is marked"),
    "everything": (lambda folder: _array(folder / "m", np.ones((32, 32))), "or every one does"),
}


@pytest.mark.parametrize("case", BAD_MASKS)
def test_a_bad_mask_is_bad_input_and_nothing_is_written(capsys, files, tmp_path, case):
    make, said = BAD_MASKS[case]
    arguments = ["-o", tmp_path / "out", "--mask", make(tmp_path)]
    code, _, err = run_cli(capsys, "score", files / "altered" / "0.npz", *arguments, "--progress", "none")
    assert code == 3
    assert len(err.strip().splitlines()) == 1
    assert re.search(said, err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (["--window", 90, 101], 2, "within the 100 steps"),
        (["--window", 5, 5], 2, "within the 100 steps"),
        (["--block", 3], 2, "do not divide"),
        (["--block", 0], 2, ""),
        (["--healthy", "masks.npz"], 3, "no 'normalized_updates'"),
        (["--healthy", "."], 3, "no 'normalized_updates'"),
        (["--body", "masks.npz"], 3, "4 bodies"),
    ],
)
def test_what_does_not_fit_ends_with_its_exit_code_and_nothing_is_written(
    capsys, files, tmp_path, monkeypatch, wrong, code, said
):
    monkeypatch.chdir(files)
    given = ["altered/0.npz", "-o", tmp_path / "out", *wrong, "--progress", "none"]
    got, _, err = run_cli(capsys, "score", *given)
    assert got == code
    assert said in err
    assert not (tmp_path / "out").exists()


def test_updates_whose_squares_overflow_have_no_score(capsys, tmp_path):
    path = write_artifact(tmp_path / "large.npz", np.full((2, 1, 1, 4, 4), 1e25), np.ones(2))
    code, _, err = run_cli(capsys, "score", path, "-o", tmp_path / "out", "--progress", "none")
    assert code == 3
    assert re.fullmatch(r".*large\.npz: .*beyond float32.*\n", err)
    assert not (tmp_path / "out").exists()


def test_a_result_names_files_without_their_folders(capsys, files, tmp_path):
    """Folders are often called after patients."""
    arguments = ["-o", tmp_path / "out", "--mask", files / "mask_0.npy", "--body", files / "body.npy"]
    code, _, err = run_cli(capsys, "score", files / "altered" / "0.npz", *arguments, *HOW, "--progress", "none")
    assert code == 0, err
    (item,) = _document(tmp_path / "out")["artifacts"]
    assert (item["file"], item["body"]) == ("0.npz", "body.npy")
    assert str(files) not in (tmp_path / "out" / "scores.json").read_text()


def test_a_folder_without_artifacts_is_bad_input(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = run_cli(capsys, "score", tmp_path / "empty", "-o", tmp_path / "out")
    assert code == 3
    assert "holds no .npz file" in err
