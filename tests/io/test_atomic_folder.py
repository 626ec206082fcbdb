"""A folder of results is there completely or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from klip_engine.errors import ResourceError, UsageError
from klip_engine.io import atomic, results_folder

RESULT = '{"schema": "klip-findings/1"}'


def write_result(out: Path, extra: str = "") -> None:
    with results_folder(out) as folder:
        (folder / "findings.json").write_text(RESULT + extra)


def write_half(out: Path, error: type[BaseException]) -> None:
    with results_folder(out) as folder:
        (folder / "findings.json").write_text("half")
        raise error


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leftover(out: Path, role: str, pid: int) -> Path:
    return out.with_name(f".{out.name}.klip-{role}-{atomic._host()}-{pid}-0123abcd")


@pytest.mark.parametrize("exists", [False, True])
def test_new_and_empty_folders_are_filled(tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    write_result(out)
    assert names(tmp_path) == ["out"]
    assert names(out) == ["findings.json"]


def test_missing_parents_are_made(tmp_path: Path) -> None:
    write_result(tmp_path / "a" / "b" / "out")
    assert names(tmp_path / "a" / "b" / "out") == ["findings.json"]


def test_earlier_result_is_replaced_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_result(out)
    (out / "klip.nrrd").touch()
    write_result(out, "\n\n")
    assert names(tmp_path) == ["out"]
    assert names(out) == ["findings.json"]
    assert (out / "findings.json").read_text() == RESULT + "\n\n"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("had_result", [False, True])
def test_any_exception_leaves_everything_as_it_was(
    tmp_path: Path, error: type[BaseException], had_result: bool
) -> None:
    out = tmp_path / "deep" / "out"
    if had_result:
        write_result(out)
    with pytest.raises(error):
        write_half(out, error)
    if had_result:
        assert (out / "findings.json").read_text() == RESULT
        assert names(tmp_path / "deep") == ["out"]
    else:
        assert names(tmp_path) == []


def test_process_that_is_killed_leaves_no_result_and_is_cleared_up_after(tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = (
        "import os, signal, sys; from pathlib import Path; from klip_engine.io import results_folder\n"
        f"with results_folder(Path({str(out)!r})) as f:\n"
        "    (f / 'findings.json').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", program], cwd=root, check=False)
    assert killed.returncode != 0
    assert not out.exists()
    assert len(names(tmp_path)) == 1
    write_result(out)
    assert names(tmp_path) == ["out"]


def test_folder_of_a_running_process_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = leftover(out, "new", os.getpid())
    running.mkdir()
    write_result(out)
    assert running.is_dir()


def test_result_lost_between_the_two_renames_is_put_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_result(out)
    out.rename(leftover(out, "old", dead_pid()))
    with pytest.raises(ValueError, match="stop"), results_folder(out):
        raise ValueError("stop")
    assert names(tmp_path) == ["out"]
    assert (out / "findings.json").read_text() == RESULT


def test_failing_second_rename_restores_the_earlier_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    write_result(out)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if "klip-new" in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(UsageError, match="Input/output error"):
        write_result(out, "new")
    assert (out / "findings.json").read_text() == RESULT
    assert names(tmp_path) == ["out"]


def test_full_disk_is_a_resource_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="is full"), results_folder(tmp_path / "out"):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"holiday.jpg": ""}, "holds no earlier result"),
        ({"findings.json": "{}"}, "holds no earlier result"),
        ({"findings.json": "[1"}, "holds no earlier result"),
        ({"findings.json": RESULT, "my notes.txt": ""}, "my notes.txt"),
    ],
)
def test_foreign_files_are_never_deleted(tmp_path: Path, files: dict[str, str], sentence: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, content in files.items():
        (out / name).write_text(content)
    with pytest.raises(UsageError, match=sentence):
        write_result(out)
    assert names(out) == sorted(files)
    assert names(tmp_path) == ["out"]


def test_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="is a file"):
        write_result(tmp_path / "out")


def test_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    write_result(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert names(tmp_path / "real") == ["findings.json"]
