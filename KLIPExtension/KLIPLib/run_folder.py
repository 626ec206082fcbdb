"""The folder of one run: made for it alone, and what a crash left of earlier ones is taken away."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

INPUT, PRINTED, ERRORS = "input.nrrd", "stdout.txt", "stderr.txt"
"""What a run keeps in its folder while it lasts: the voxels handed over, and what the engine prints."""
_DETECTION, _EXPORT = "klip-", "klip-dicom-"
_LEFT_S = 24 * 3600
"""Nothing was written for so long: no run is behind it any more, in this Slicer or another."""


def make_run_folder(temporary: Path, *, export: bool = False) -> Path:
    """A new folder in the module's folder for temporary files, for this user's eyes only."""
    temporary.mkdir(parents=True, exist_ok=True)
    remove_leftovers(temporary)
    return Path(tempfile.mkdtemp(prefix=_EXPORT if export else _DETECTION, dir=temporary))


def remove_leftovers(temporary: Path) -> None:
    """Remove the folders of runs that never came to their end, a day after they last changed.

    A run that ended has left its results alone in its folder, which the scene may need, or nothing.
    """
    for folder in temporary.glob(f"{_DETECTION}*"):
        try:
            if folder.is_dir() and not folder.is_symlink() and _is_left(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # gone in this moment, or not ours to look at


def _is_left(folder: Path) -> bool:
    content = list(folder.iterdir())
    ended = [one.name for one in content] == ["results"]
    newest = max(path.lstat().st_mtime for path in (folder, *content))
    return not ended and time.time() - newest > _LEFT_S
