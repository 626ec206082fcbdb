"""A program in the engine's place that misbehaves: `fake_engine.py WHAT RESULTS -m klip_engine detect ...`.

WHAT: what it does, see `main`; RESULTS: a complete folder of results, which `done` copies to where it is asked to.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path


def say(event: str, **facts: object) -> None:
    print(json.dumps({"event": event} | facts), flush=True)


def progress(done: int, total: int = 100) -> None:
    say("progress", stage="reconstructing", done=done, total=total, elapsed_s=done / 10, remaining_s=5.0)


def done(results: Path, out: Path) -> None:
    shutil.copytree(results, out)
    say("done", out=str(out), findings=1)


def tree(out: Path) -> None:
    """A child that outlives its parent's SIGTERM, as the parent itself does; both leave their number."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=subprocess.DEVNULL)
    Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {child.pid}", encoding="utf-8")
    progress(1)
    time.sleep(600)


def main(what: str, results: Path, out: Path) -> int:
    if what.isdigit():
        say("error", message=f"scan.nrrd ended with {what}; try another", exit_code=int(what))
        return int(what)
    if what.startswith("mute-"):
        return int(what.removeprefix("mute-"))
    if what == "copy":
        say("start", version="0", slices=3)
        progress(50)
        done(results, out)
    elif what == "slow":
        for step in range(6000):
            progress(step, 6000)
            time.sleep(0.05)
    elif what == "doubtful":
        say("start", version="0", views=360)
        say("warning", message="The detector is mirrored.")
        time.sleep(600)
    elif what == "silent":
        time.sleep(600)
    elif what == "tree":
        tree(out)
    elif what == "killed":
        progress(10)
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "steady":  # 100 messages a second
        began = time.perf_counter()
        for step in range(200):
            progress(step, 200)
            time.sleep(max(0.0, began + step / 100 - time.perf_counter()))
        done(results, out)
    elif what == "flood":  # as fast as they go
        for step in range(20_000):
            print(json.dumps({"event": "progress", "stage": "s", "done": step, "total": 20_000, "elapsed_s": 1.0}))
        done(results, out)
    elif what == "garbage":
        for line in (b"{", b"{}", b"[1]", b'{"event": 3}', b'{"event": "progress"}', b"\xff\xfe not text", b"",
                     b'{"event": "progress", "done": NaN, "total": 3, "elapsed_s": 1}', b"x" * 3_000_000,
                     b'{"event": "progress", "stage": "s", "done": 1, "total": 0, "elapsed_s": 1}'):  # fmt: skip
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
        sys.stdout.buffer.write(b'{"event": "progress", "stage": "half a line", "done"')
        sys.stdout.buffer.flush()
        time.sleep(0.4)
        sys.stdout.buffer.write(b': 7, "total": 10, "elapsed_s": 1.5}\n')
        sys.stdout.buffer.flush()
        done(results, out)
    elif what == "vanish":
        say("done", out=str(out), findings=0)
    return 0


if __name__ == "__main__":
    words = sys.argv[3:]
    target = Path(words[words.index("-o") + 1]) if "-o" in words else Path()
    raise SystemExit(main(sys.argv[1], Path(sys.argv[2]), target))
