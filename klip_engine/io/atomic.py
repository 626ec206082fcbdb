"""A folder of results that is there completely or not at all.

Everything is written to a hidden sibling, `.OUT.klip-new-HOST-PID-RANDOM`, flushed to the disk and renamed to
OUT at the end. An earlier result is first renamed to `.OUT.klip-old-...` and deleted last: between the two
renames (microseconds) OUT does not exist; if the machine stops exactly then, the next run puts it back.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from klip_engine.errors import ResourceError, UsageError
from klip_engine.files import flush_folder

SCHEMA = "klip-findings/1"
"""Of findings.json; a folder that holds such a file is a result of this program."""

FINDINGS_FILE = "findings.json"


@dataclass(frozen=True)
class ResultKind:
    """What a folder of results is known by: a JSON file with a schema, and the names of all that lies beside it."""

    file: str
    schema: str
    names: frozenset[str]


DETECTION = ResultKind(
    FINDINGS_FILE,
    SCHEMA,
    frozenset(
        {
            "findings.csv",
            "klip.nrrd",
            "klip-working.nrrd",
            "reconstruction.nrrd",
            "reconstruction.png",
            "regions.nrrd",
            "regions.png",
            "report.html",
            "dicom",
            "updates",
        }
    ),
)


@contextmanager
def results_folder(out: Path, kind: ResultKind | None = DETECTION) -> Iterator[Path]:
    """A temporary folder to write into, which becomes `out` when the block ends without an exception.

    On any exception, a keyboard interrupt included, it is removed and `out` is as it was before. `out` may be
    new, an empty folder, or an earlier result of this kind, which is replaced (None: nothing is).
    Raises UsageError where `out` holds something else or cannot be written; ResourceError on a full disk.
    """
    out = _absolute(out)
    check_replaceable(out, kind)
    created = _create_parents(out)
    try:
        with _disk_errors(out):
            _sweep(out)
        temporary = _sibling(out, "new")
        with _disk_errors(out):
            temporary.mkdir()
        try:
            with _disk_errors(out):
                yield temporary
                _flush(temporary)
                check_replaceable(out, kind)
                _swap(temporary, out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except BaseException:
        for folder in created:
            _remove_if_empty(folder)
        raise


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out`, on the same disk, for what is written before the results are complete.

    It is gone when the block ends; one that a killed process left behind goes with the next results in `out`.
    """
    out = _absolute(out)
    created = _create_parents(out)
    try:
        scratch = _sibling(out, "new")
        with _disk_errors(out):
            scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    finally:
        for folder in created:
            _remove_if_empty(folder)


def check_replaceable(out: Path, kind: ResultKind | None = DETECTION) -> None:
    """Raise UsageError unless `out` is new, an empty folder or an earlier result of this kind, nothing added.

    Worth calling before hours of computation.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; name a new or empty folder for the results")
    try:
        names = sorted(p.name for p in out.iterdir())
    except OSError as error:
        raise UsageError(f"cannot look into {out}: {error.strerror}; choose another folder") from error
    if not names:
        return
    if kind is None:
        raise UsageError(f"{out} is not empty; name a new or empty folder")
    if not _is_own_result(out, kind):
        raise UsageError(
            f"{out} is not empty and holds no earlier result of this program; name a new or empty folder"
        )
    foreign = [n for n in names if n not in kind.names | {kind.file} and not n.endswith(".dcm")]
    if foreign:
        raise UsageError(
            f"{out} holds an earlier result and a file that is not part of it ({foreign[0]}); "
            "move that away or name another folder"
        )


def _is_own_result(folder: Path, kind: ResultKind) -> bool:
    try:
        document = json.loads((folder / kind.file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    schema = document.get("schema") if isinstance(document, dict) else None
    return isinstance(schema, str) and schema.startswith(kind.schema.partition("/")[0] + "/")


def _absolute(out: Path) -> Path:
    """Links resolved, so that a link to a folder stays a link and its target is replaced."""
    out = Path(out).resolve()
    if not out.name:
        raise UsageError(f"{out} cannot be used for results; name a new or empty folder")
    return out


def _create_parents(out: Path) -> list[Path]:
    """Create the missing parents; returns them, innermost first."""
    missing = [p for p in out.parents if not p.exists()]
    with _disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    return missing


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(f"the disk of {out} is full; free some space or choose another folder") from error
        raise UsageError(f"cannot write to {out}: {error.strerror or error}; choose another folder") from error


def _sibling(out: Path, role: str) -> Path:
    return out.with_name(f".{out.name}.klip-{role}-{_host()}-{os.getpid()}-{secrets.token_hex(4)}")


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname()) or "host"


def _sweep(out: Path) -> None:
    """Clear up after processes of this machine that died while writing to `out`."""
    pattern = re.compile(rf"\.{re.escape(out.name)}\.klip-(new|old)-{_host()}-(\d+)-[0-9a-f]{{8}}")
    for path in out.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match is None or _is_running(int(match[2])):
            continue
        if match[1] == "old" and not out.exists():
            path.rename(out)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _is_running(pid: int) -> bool:
    """Whether a process exists. On Windows the standard library cannot ask without harm: assume so."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _flush(folder: Path) -> None:
    """Make sure that what was written is on the disk before it gets its final name."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb+") as stream:
                os.fsync(stream.fileno())
    flush_folder(folder)


def _swap(temporary: Path, out: Path) -> None:
    if not out.exists():
        temporary.rename(out)
    else:
        earlier = _sibling(out, "old")
        out.rename(earlier)
        try:
            temporary.rename(out)
        except BaseException:
            earlier.rename(out)
            raise
        shutil.rmtree(earlier, ignore_errors=True)
    flush_folder(out.parent)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
