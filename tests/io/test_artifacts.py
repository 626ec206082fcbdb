"""Artifacts of the published pipeline: numpy reads what we write, we read what numpy writes, nothing else."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from klip_engine.errors import InputError, UsageError
from klip_engine.io import artifacts
from klip_engine.io.artifacts import open_artifact, write_artifact

SHAPE = (6, 2, 3, 4, 5)
UPDATES = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
G_VALUES = np.linspace(3, 0.01, 6, dtype=np.float32)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8"])
def test_what_numpy_saves_is_read_back_step_by_step_as_float32(tmp_path, save, dtype):
    stored = UPDATES.astype(dtype)
    save(tmp_path / "a.npz", normalized_updates=stored, g_values=G_VALUES, something_else=np.arange(3))
    artifact = open_artifact(tmp_path / "a.npz")
    assert artifact.shape == SHAPE
    np.testing.assert_array_equal(artifact.g_values, G_VALUES)
    np.testing.assert_array_equal(artifact.load(), stored.astype(np.float32))
    window = list(artifact.updates(2, 5))
    assert window[0].dtype == np.float32
    np.testing.assert_array_equal(window, stored[2:5].astype(np.float32))


def test_numpy_reads_what_is_written_without_pickle(tmp_path):
    body = np.eye(4, 5)
    settings = {"seed": 3, "operator": {"name": "identity"}}
    path = write_artifact(tmp_path / "a.npz", UPDATES, G_VALUES, sigma=G_VALUES * 2, body=body, settings=settings)
    with np.load(path, allow_pickle=False) as stored:
        assert set(stored) == {"normalized_updates", "g_values", "sigma", "body", "settings"}
        np.testing.assert_array_equal(stored["normalized_updates"], UPDATES)
        np.testing.assert_array_equal(stored["g_values"], G_VALUES)
    artifact = open_artifact(path)
    assert artifact.settings == settings
    np.testing.assert_array_equal(artifact.body, body > 0)
    np.testing.assert_array_equal(artifact.sigma, G_VALUES * 2)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def save(path: Path, **arrays) -> None:
    np.savez(path, **({"normalized_updates": UPDATES, "g_values": G_VALUES} | arrays))


def only(path: Path, **arrays) -> None:
    np.savez(path, **arrays)


def cut(path: Path) -> None:
    save(path)
    path.write_bytes(path.read_bytes()[:-60])


def flip_a_byte(path: Path) -> None:
    save(path)
    content = bytearray(path.read_bytes())
    content[content.index(UPDATES[3].tobytes()) + 8] ^= 1
    path.write_bytes(content)


def claim_another_shape(path: Path) -> None:
    """A header that promises 9 steps over the data of 6."""
    save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["normalized_updates.npy"] = members["normalized_updates.npy"].replace(b"(6, 2", b"(9, 2")
    members["g_values.npy"] = members["g_values.npy"].replace(b"(6,)", b"(9,)")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def claim_a_gigantic_shape(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("normalized_updates", "g_values"):
            header = (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 900, 3, 9000, 9000), }".ljust(117) + "\n"
            )
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00v\x00" + header.encode())


def with_nan(path: Path) -> None:
    updates = UPDATES.copy()
    updates[4, 1, 0, 2, 2] = np.nan
    save(path, normalized_updates=updates)


def too_large_for_float32(path: Path) -> None:
    save(path, normalized_updates=np.full(SHAPE, 1e200))


def without_head(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("normalized_updates", "g_values"):
            archive.writestr(f"{name}.npy", b"")


def without_endings(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("normalized_updates", "g_values"):
            archive.writestr(name, b"x")


def with_head(head: str):
    """An archive whose arrays begin with a head of the right length that says something else."""

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("normalized_updates", "g_values"):
                archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00v\x00" + head.ljust(117).encode() + b"\n")

    return make


BAD = {
    "no endings": (without_endings, "no 'normalized_updates' .it holds no arrays"),
    "head that does not end": (with_head("{'descr': ("), "damaged or incomplete"),
    "head that is no Python": (with_head("{'descr': '<f4', 'shape': (6L, 09, 3]"), "damaged or incomplete"),
    "head of another kind": (with_head("[]"), "damaged or incomplete"),
    "unknown type": (
        with_head("{'descr': 'f4,(', 'fortran_order': False, 'shape': (6,)}"),
        "damaged or incomplete",
    ),
    "no head": (without_head, "damaged or incomplete"),
    "missing": (lambda path: None, "no such file"),
    "text": (lambda path: path.write_text("normalized_updates"), "is not an .npz file"),
    "empty": (lambda path: path.write_bytes(b""), "is not an .npz file"),
    "cut": (cut, "its end is missing"),
    "one bit": (flip_a_byte, "damaged or incomplete"),
    "no updates": (lambda path: only(path, g_values=G_VALUES), "no 'normalized_updates' .it holds g_values"),
    "no g": (lambda path: only(path, normalized_updates=UPDATES), "no 'g_values'"),
    "rank": (lambda path: save(path, normalized_updates=UPDATES[0]), "not .steps, samples"),
    "no step": (lambda path: save(path, normalized_updates=UPDATES[:0], g_values=G_VALUES[:0]), "nothing to score"),
    "nan": (with_nan, "step 4 of normalized_updates is not finite"),
    "overflow": (too_large_for_float32, "step 0 of normalized_updates is not finite"),
    "nan g": (lambda path: save(path, g_values=G_VALUES * np.nan), "'g_values' is not finite"),
    "objects": (lambda path: save(path, normalized_updates=UPDATES.astype(object)), "holds Python objects"),
    "object g": (lambda path: save(path, g_values=G_VALUES.astype(object)), "holds Python objects"),
    "integers": (lambda path: save(path, normalized_updates=UPDATES.astype(int)), "not floating-point"),
    "length of g": (lambda path: save(path, g_values=G_VALUES[:5]), "'g_values' has the shape .5,."),
    "text as g": (lambda path: save(path, g_values=np.array(["a"] * 6)), "not numbers"),
    "another shape": (claim_another_shape, "shorter or longer than its shape"),
    "gigantic": (claim_a_gigantic_shape, "more than 1 GiB"),
    "columns first": (lambda path: save(path, normalized_updates=np.asfortranarray(UPDATES)), "column by column"),
    "body": (lambda path: save(path, body=np.ones((3, 3))), "'body' has the shape"),
    "settings": (lambda path: save(path, settings=np.array("{")), "damaged"),
    "settings list": (lambda path: save(path, settings=np.array("[]")), "holds no settings"),
    "settings number": (lambda path: save(path, settings=np.array(3)), "is not a text"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_artifact_is_said_in_one_sentence_with_the_file(tmp_path, case):
    make, said = BAD[case]
    path = tmp_path / "a.npz"
    make(path)
    with pytest.raises(InputError, match=said) as error:
        open_artifact(path).load()
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"normalized_updates": UPDATES[0]}, "not \\(2, 3, 4, 5\\)"),
        ({"normalized_updates": UPDATES[:0]}, "not \\(0,"),
        ({"g_values": G_VALUES[:2]}, "one value each"),
        ({"sigma": [1.0]}, "one value each"),
        ({"normalized_updates": UPDATES * np.inf}, "not finite"),
        ({"body": np.ones((2, 2))}, "the body"),
    ],
)
def test_what_does_not_belong_together_is_not_written(tmp_path, changed, said):
    given = {"normalized_updates": UPDATES, "g_values": G_VALUES} | changed
    with pytest.raises(UsageError, match=said):
        write_artifact(tmp_path / "a.npz", given.pop("normalized_updates"), given.pop("g_values"), **given)
    assert not list(tmp_path.iterdir())


def test_a_full_window_is_read_in_the_memory_of_one_step(tmp_path, monkeypatch):
    path = write_artifact(tmp_path / "a.npz", UPDATES, G_VALUES)
    read = []
    plain = np.frombuffer
    monkeypatch.setattr(
        artifacts.np, "frombuffer", lambda data, **kwargs: read.append(len(data)) or plain(data, **kwargs)
    )
    assert len(list(open_artifact(path).updates())) == 6
    assert max(read) == UPDATES[0].nbytes
