"""Folders of runs: what a crash left goes, everything else stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

from KLIPLib.run_folder import make_run_folder

from tests.extension.panel.conftest import left_in

DAYS = 24 * 3600


def aged(path: Path, days: float) -> None:
    """Make a folder with all in it look that old."""
    when = time.time() - days * DAYS
    for one in [*path.rglob("*"), path]:
        os.utime(one, (when, when))


def run(temporary: Path, name: str, days: float, *files: str) -> Path:
    folder = temporary / name
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(b"voxels")
    aged(folder, days)
    return folder


def test_what_a_crash_left_a_day_ago_goes(tmp_path):
    run(tmp_path, "klip-crashed", 2, "input.nrrd", "stdout.txt", "stderr.txt", "results.partial/klip.nrrd")
    run(tmp_path, "klip-written", 2, "input.nrrd", "stdout.txt", "results/findings.json")
    run(tmp_path, "klip-dicom-crashed", 2, "sources.txt")
    run(tmp_path, "klip-empty", 2)
    new = make_run_folder(tmp_path)
    assert left_in(tmp_path) == [new.name]
    assert new.stat().st_mode & 0o077 == 0


def test_what_may_be_needed_stays(tmp_path):
    run(tmp_path, "klip-results", 400, "results/findings.json")
    run(tmp_path, "klip-yesterday", 0.9, "input.nrrd")
    alive = run(tmp_path, "klip-alive", 3, "input.nrrd", "stdout.txt")
    (alive / "stdout.txt").write_bytes(b"a line more")
    run(tmp_path, "of-another-module", 3, "input.nrrd")
    outside = run(tmp_path.parent / "outside", "data", 3, "input.nrrd")
    (tmp_path / "klip-link").symlink_to(outside)
    (tmp_path / "klip-file").write_bytes(b"")
    aged(tmp_path / "klip-file", 3)
    before = left_in(tmp_path)
    new = make_run_folder(tmp_path)
    assert left_in(tmp_path) == sorted([*before, new.name])
    assert (outside / "input.nrrd").exists()
