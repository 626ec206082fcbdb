"""The engine beside Slicer: its output in any shape, its end in any way, its whole process tree."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from KLIPLib.command import engine_environment, engine_home
from KLIPLib.lines import GrowingFile, event_in, progress_in
from KLIPLib.outcome import End, failure_sentence
from KLIPLib.runner import EngineRun

from tests.extension.mrml import EXTENSION
from tests.extension.panel.conftest import FAKE, alive, behind_launcher, gone, left_in

pytestmark = pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX; Windows uses taskkill")


class Still:
    """A ticker that never ticks: the tests look themselves."""

    def stop(self) -> None:
        pass


class Watched:
    """A run of a fake engine and everything it told."""

    def __init__(self, folder: Path, what: str, results: Path | str = "none", **environment: str) -> None:
        folder.mkdir(exist_ok=True)
        self.out, self.progress, self.outcomes = folder / "out", [], []
        command = [
            sys.executable,
            str(FAKE),
            what,
            str(results),
            "-m",
            "klip_engine",
            "detect",
            "x",
            "-o",
            str(self.out),
        ]
        self.run = EngineRun(
            command,
            folder,
            engine_environment(os.environ, engine_home()) | environment,
            make_ticker=lambda interval, callback: Still(),
            ended=self.outcomes.append,
            progress=self.progress.append,
        )

    def to_the_end(self, seconds: float = 20.0):
        until = time.monotonic() + seconds
        while self.run.running:
            assert time.monotonic() < until
            self.run.advance()
            time.sleep(0.02)
        return self.outcomes[-1]

    def until(self, condition, seconds: float = 20.0) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until
            self.run.advance()
            time.sleep(0.02)


@pytest.fixture
def some_results(tmp_path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "findings.json").write_text("{}")
    return folder


def test_an_ordinary_run(tmp_path, some_results):
    run = Watched(tmp_path / "run", "copy", some_results)
    outcome = run.to_the_end()
    assert (outcome.end, outcome.exit_code) == (End.DONE, 0)
    assert outcome.event["findings"] == 1
    assert run.progress[-1].fraction == 0.5
    assert left_in(run.out) == ["findings.json"]
    assert run.run.log[0].startswith(sys.executable)
    assert len(run.outcomes) == 1


@pytest.mark.parametrize("what", ["steady", "flood"])
def test_many_messages_are_one_progress_a_look(tmp_path, some_results, what):
    run = Watched(tmp_path / "run", what, some_results)
    assert run.to_the_end().end is End.DONE
    done = [progress.done for progress in run.progress]
    assert done == sorted(done)
    assert done[-1] == {"steady": 199, "flood": 19_999}[what]
    assert len(run.run.log) < 20  # progress is no log


def test_lines_that_are_none_do_no_harm(tmp_path, some_results):
    run = Watched(tmp_path / "run", "garbage", some_results)
    assert run.to_the_end().end is End.DONE
    assert run.progress[-1].stage == "half a line"
    assert (run.progress[-1].done, run.progress[-1].total) == (7, 10)
    assert any("\ufffd" in line for line in run.run.log)


@pytest.mark.parametrize("code", [1, 2, 3, 5])
def test_a_failed_run_speaks_with_the_engines_sentence(tmp_path, code):
    outcome = Watched(tmp_path / "run", str(code)).to_the_end()
    assert outcome.end is End.FAILED
    assert outcome.exit_code == code
    assert outcome.message == f"Scan.nrrd ended with {code}; try another."


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "without a word"),
        (1, "did not expect"),
        (2, "settings"),
        (3, "input"),
        (4, "stopped"),
        (5, "Memory"),
        (77, "77"),
    ],
)
def test_a_run_that_ends_without_a_word_is_explained(tmp_path, code, words):
    outcome = Watched(tmp_path / "run", f"mute-{code}").to_the_end()
    assert outcome.end is End.FAILED
    assert words in outcome.message


def test_a_killed_engine_may_have_had_no_memory(tmp_path):
    outcome = Watched(tmp_path / "run", "killed").to_the_end()
    assert outcome.end is End.FAILED
    assert "SIGKILL" in outcome.message
    assert "Out of memory?" in outcome.message


def test_a_command_that_does_not_exist_ends_with_a_sentence(tmp_path):
    outcomes = []
    run = EngineRun(
        [str(tmp_path / "none")], tmp_path, os.environ, make_ticker=lambda *_: Still(), ended=outcomes.append
    )
    run.advance()
    assert outcomes[0].end is End.FAILED
    assert "could not be started: No such file" in outcomes[0].message


def test_what_the_parser_of_options_says_is_passed_on():
    errors = ["Usage: klip-engine detect", "╭─ Error ──╮", "│ Invalid value for '--steps': 1 is     │",
              "│ not in the range x>=2.   │", "╰──╯"]  # fmt: skip
    assert failure_sentence(2, None, errors) == "Invalid value for '--steps': 1 is not in the range x>=2."


def test_a_python_that_lacks_a_package_is_named():
    errors = ["Traceback", "ModuleNotFoundError: No module named 'torch'"]
    assert "lacks the package 'torch'" in failure_sentence(1, None, errors)


def test_a_silent_engine_is_cancelled_at_once(tmp_path):
    run = Watched(tmp_path / "run", "silent")
    run.run.cancel()
    run.run.cancel()
    outcome = run.to_the_end(5)
    assert outcome.end is End.CANCELLED
    assert run.progress == []


def test_cancel_ends_the_whole_tree_even_a_stubborn_one(tmp_path):
    pids = tmp_path / "pids"
    run = Watched(tmp_path / "run", "tree", PIDS=str(pids))
    run.until(lambda: run.progress)
    numbers = [int(word) for word in pids.read_text().split()]
    assert all(map(alive, numbers))
    run.run.cancel()
    assert run.to_the_end().end is End.CANCELLED
    gone(pids.read_text())


def test_a_cancelled_engine_behind_a_launcher_may_clear_up(tmp_path):
    """The launcher is gone at once; the engine it started has its moment, and the end is told after it."""
    started, cleared = tmp_path / "started", tmp_path / "cleared"
    code = (
        "import signal, sys, time, pathlib\n"
        "def stop(*_):\n"
        f"    time.sleep(0.5); pathlib.Path({str(cleared)!r}).touch(); sys.exit(4)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        f"pathlib.Path({str(started)!r}).touch()\n"
        "time.sleep(60)\n"
    )
    outcomes = []
    (tmp_path / "run").mkdir()
    run = EngineRun(
        [str(behind_launcher(tmp_path, sys.executable)), "-c", code],
        tmp_path / "run",
        os.environ,
        make_ticker=lambda *_: Still(),
        ended=outcomes.append,
    )
    _until(started.exists)
    run.cancel()
    _until(lambda: run.advance() or outcomes)
    assert outcomes[0].end is End.CANCELLED
    assert cleared.exists()


def test_end_now_waits_for_the_end(tmp_path):
    pids = tmp_path / "pids"
    run = Watched(tmp_path / "run", "tree", PIDS=str(pids))
    run.until(lambda: run.progress)
    run.run.end_now(grace_s=0.1)
    assert not run.run.running
    gone(pids.read_text())


def test_a_run_whose_folder_vanishes_still_ends(tmp_path):
    import shutil

    run = Watched(tmp_path / "run", "slow")
    run.until(lambda: run.progress)
    shutil.rmtree(tmp_path / "run")
    run.run.advance()
    run.run.cancel()
    assert run.to_the_end().end is End.CANCELLED


def test_two_runs_do_not_mix(tmp_path, some_results):
    one, other = Watched(tmp_path / "one", "copy", some_results), Watched(tmp_path / "other", "3")
    assert other.to_the_end().end is End.FAILED
    assert one.to_the_end().end is End.DONE
    assert one.out.is_dir()
    assert not other.out.exists()


@pytest.mark.parametrize("launched", [False, True], ids=["directly", "behind a launcher"])
def test_the_engine_ends_when_its_caller_is_gone(tmp_path, launched):
    """A process that starts the real engine as the module does and is killed: the engine does not outlive it."""
    pid = tmp_path / "pid"
    python = behind_launcher(tmp_path, sys.executable) if launched else sys.executable
    engine = (
        "import os; from klip_engine.console import stop_on_signals\n"
        f"open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
        "with stop_on_signals() as stop: print(1, flush=True); stop.wait(60); print(2, flush=True)"
    )
    program = (
        "import os, sys, time\n"
        f"sys.path.insert(0, {str(EXTENSION)!r})\n"
        "from pathlib import Path\n"
        "from KLIPLib.command import engine_environment, engine_home\n"
        "from KLIPLib.process import ProcessTree\n"
        f"folder = Path({str(tmp_path)!r})\n"
        f"code = {engine!r}\n"
        "environment = engine_environment(os.environ, engine_home())\n"
        f"command = [{str(python)!r}, '-c', code]\n"
        "tree = ProcessTree(command, folder, environment, folder / 'out', folder / 'err')\n"
        "time.sleep(60)\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", program])
    try:
        _until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").read_text() == "1\n")
        engine = int(pid.read_text())
        assert alive(engine)
    finally:
        caller.send_signal(signal.SIGKILL)
        caller.wait()
    _until(lambda: not alive(engine))
    assert (tmp_path / "out").read_text() == "1\n2\n"  # it was asked, not shot


def test_an_engine_that_nobody_binds_ignores_its_input(tmp_path):
    code = "from klip_engine.console import stop_on_signals\nwith stop_on_signals() as stop: print(stop.wait(0.5))"
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert said.stdout == "False\n"


def test_lines_count_when_they_are_complete(tmp_path):
    path = tmp_path / "lines"
    reader = GrowingFile(path)
    assert reader.new_lines() == []
    with path.open("wb") as stream:
        for piece, lines in [
            (b"a\nb", ["a"]),
            (b"c\r\n\n", ["bc", ""]),
            ("ü".encode()[:1], []),
            ("ü".encode()[1:], []),
        ]:
            stream.write(piece)
            stream.flush()
            assert reader.new_lines() == lines
    assert reader.last_lines() == ["ü"]
    assert reader.last_lines() == []


@pytest.mark.parametrize(
    "line", ["", "{", "x" * 10, "[" * 10_000, '{"a": 1}', '{"event": null}', "null", "{" * 100_000]
)
def test_a_line_without_an_event_has_none(line):
    assert event_in(line) is None


def test_progress_needs_its_numbers():
    event = {"event": "progress", "stage": "s", "done": 1, "total": 4, "elapsed_s": 2}
    assert progress_in(event_in(json.dumps(event))).fraction == 0.25
    for broken in ({"done": None}, {"total": "4"}, {"elapsed_s": True}, {"done": float("inf")}):
        assert progress_in(event | broken) is None


def _until(condition, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
