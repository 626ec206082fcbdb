"""Damaged files are read or refused with a KlipError: no traceback, no hang, no memory out of proportion.

`python -m benchmarks.fuzz_dicom` does the same by the ten thousand.
"""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import pytest

from klip_engine.errors import KlipError
from klip_engine.io import read_ct

from .dicom_mutations import healthy_files, mutated

KEPT_SEEDS = (36246, 5693, 18, 221, 571, 1051, 1278)
"""Once ended the program or came out as something else than a KlipError."""
COUNT = 300


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    if shutil.which("dcmcjpeg") is None:
        pytest.skip("needs dcmcjpeg of DCMTK")
    return healthy_files(tmp_path_factory.mktemp("healthy"))


def test_the_files_are_healthy_before_they_are_damaged(healthy: list[Path]) -> None:
    for path in healthy:
        assert read_ct(path).volume.geometry.size[:2] == (48, 40)


def refusal_or_nothing(path: Path) -> str:
    try:
        read_ct(path)
    except KlipError as error:
        return str(error)
    return ""


def test_damaged_files(healthy: list[Path], tmp_path: Path) -> None:
    outcomes = {"read": 0, "refused": 0}
    tracemalloc.start()
    try:
        for path in healthy:
            content = path.read_bytes()
            for seed in (*KEPT_SEEDS, *range(COUNT // len(healthy))):
                damaged = tmp_path / f"damaged{path.suffix}"
                damaged.write_bytes(mutated(content, seed))
                sentence = refusal_or_nothing(damaged)
                outcomes["refused" if sentence else "read"] += 1
                assert "\n" not in sentence
                assert "secret" not in sentence.lower()
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()
    assert min(outcomes.values()) > COUNT // 20  # the damage is neither harmless nor always fatal
